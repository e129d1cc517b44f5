"""A study in optuna-dashboard: `python analysis/dashboard.py --study NAME --runs DIR`, for this machine's browser."""

from dataclasses import dataclass
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import optuna_dashboard
import tyro

from fsr.errors import UserError, reports_user_errors
from launch.state.paths import StudyFolder
from launch.state.storage import open_launched

HOST = "127.0.0.1"  # the dashboard asks for no password, and can change and delete studies


@dataclass(frozen=True, kw_only=True)
class Options:
    """Show a study's search in the browser: history, importance of parameters, slices. Ctrl-C ends it.

    Optuna's own command must not open a study's journal, for it takes another kind of lock than the workers do.
    """

    study: str
    """The study's name."""
    runs: Path = Path("runs")
    """Folder of all studies."""
    port: int = 8080
    """Port of this machine to listen on."""


class Server(ThreadingMixIn, WSGIServer):
    """Serves each connection in its own thread.

    Browsers open connections in advance and send nothing on them; in a single thread one of these would block the rest.
    """

    daemon_threads = True


class Handler(WSGIRequestHandler):
    """Writes no line for each request."""

    def log_message(self, *args: Any) -> None:
        """Nothing."""


@reports_user_errors
def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    options = tyro.cli(Options, args=arguments)
    storage = open_launched(StudyFolder.in_runs(options.runs, options.study))
    try:
        number = storage.get_study_id_from_name(options.study)
    except KeyError:
        raise UserError(f"the storage has no study {options.study}") from None
    try:
        server = make_server(HOST, options.port, optuna_dashboard.wsgi(storage), Server, Handler)
    except OSError as error:
        raise UserError(f"port {options.port}: {error.strerror}; name another with --port") from None
    with server:
        print(f"http://{HOST}:{options.port}/dashboard/studies/{number}   (Ctrl-C ends it)", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            return


if __name__ == "__main__":
    main()
