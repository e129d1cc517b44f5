"""What a command that serves pages says of its address: a browser on another machine reaches it through ssh."""

import socket
from urllib.parse import urlsplit

from fsr.system_errors import getuser


def address_lines(address: str) -> str:
    """The lines that tell an address of this machine, and the command that leads another one's browser to it."""
    port = urlsplit(address).port
    ssh = f"ssh -L {port}:localhost:{port} {getuser()}@{socket.gethostname()}"
    return f"{address}   (Ctrl-C ends it)\nfrom another machine, first: {ssh}"
