"""The notebooks in JupyterLab: `fsr notebooks --study NAME`, for this machine's browser.

It registers the kernel `fsr` for its user first, so that any other JupyterLab opens the notebooks as well.
"""

if __name__ == "__main__":
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parent.parent)  # this checkout, whatever Python it is
    from fsr import beginning

    beginning.begin("notebooks")

import os
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from ipykernel.kernelspec import install

from analysis.address import ssh_line
from analysis.guard import HOST, no_port
from analysis.load import RUNS, named, study_folder
from fsr.bounds import PORT, Bounded
from fsr.command import parse_flags
from fsr.errors import reports_user_errors

KERNEL = "fsr"  # as the notebooks name it
FOLDER = Path(__file__).parent
FLAGS = (
    "--no-browser",
    "--allow-root",  # in containers that know nobody else
    f"--ServerApp.ip={HOST}",
    "--ServerApp.port_retries=0",  # who asked for a port gets that one, or is told
    "--ServerApp.terminals_enabled=False",
    "--ServerApp.log_level=WARN",  # its address is said all the same
    "--KernelManager.transport=ipc",  # by default a kernel listens on TCP ports, for every user of this machine
    # Nothing is asked of the network: no news, no new versions, no extensions.
    "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    "--LabApp.news_url=None",
    "--LabApp.extension_manager=readonly",
    "--LabApp.default_url=/lab/tree/overview.ipynb",
)


@dataclass(frozen=True, kw_only=True)
class Options(Bounded):
    """Open the notebooks in JupyterLab. Ctrl-C ends it.

    It answers whoever has the address that it prints: who has it can run programs as you.

    Examples:
        --study mask_ratio
        --study mask_ratio block_size --port 8900
    """

    study: tuple[str, ...] = ()
    """Studies that the notebooks begin with; by default the one that was launched last."""
    runs: Path = RUNS
    """Folder of all studies."""
    port: Annotated[int, PORT] = 8888
    """Port of this machine to listen on."""


def register_kernel() -> Path:
    """Make this Python, with this project, the kernel `fsr` of all of its user's Jupyters; where that is written."""
    root = str(FOLDER.parent)
    return Path(install(user=True, kernel_name=KERNEL, display_name="FSR", env={"PYTHONPATH": root}))


def check_port(port: int) -> None:
    """Raise UserError if the port cannot be had."""
    with socket.socket() as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind((HOST, port))
        except OSError as error:
            raise no_port(port, error) from None


@reports_user_errors
def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    options = parse_flags(Options, "notebooks", arguments)
    if options.study:
        for study in named(options.study):
            study_folder(study, options.runs)
        os.environ["STUDY"] = " ".join(named(options.study))
    os.environ["RUNS"] = str(options.runs.absolute())
    check_port(options.port)
    print(f"kernel {KERNEL} is in {register_kernel()}\n{ssh_line(options.port)}", flush=True)
    flags = (*FLAGS, f"--ServerApp.port={options.port}", f"--ServerApp.root_dir={FOLDER}")
    os.execv(sys.executable, [sys.executable, "-m", "jupyterlab", *flags])


if __name__ == "__main__":
    main()
