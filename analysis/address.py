"""What a command that serves pages says of its address: a browser on another machine reaches it through ssh."""

import socket
from urllib.parse import urlsplit

from fsr.system_errors import getuser


def address_lines(address: str) -> str:
    """The lines that tell an address of this machine, and the command that leads another one's browser to it."""
    return f"{address}   (Ctrl-C ends it)\n{ssh_line(urlsplit(address).port)}"


def ssh_line(port: int | None) -> str:
    """The line that tells the command alone."""
    return f"from another machine, first: ssh -L {port}:localhost:{port} {getuser()}@{socket.gethostname()}"
