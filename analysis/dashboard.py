"""A study in optuna-dashboard: `fsr dashboard --study NAME`, for this machine's browser."""

if __name__ == "__main__":
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parent.parent)  # this checkout, whatever Python it is
    from fsr import beginning

    beginning.begin("dashboard")

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import optuna_dashboard

from analysis.address import address_lines
from analysis.guard import READING, Guard, Server
from analysis.search import WithSearch
from fsr.bounds import PORT, Bounded
from fsr.command import parse_flags
from fsr.errors import UserError, reports_user_errors
from launch.state.paths import StudyFolder
from launch.state.storage import open_launched


@dataclass(frozen=True, kw_only=True)
class Options(Bounded):
    """Show a study in the browser: history, importance of parameters, slices. Ctrl-C ends it.

    It begins with the study's search; the study with its repeats is beside it. Both are live.

    It answers whoever has the address that it prints, and changes nothing without --writable.

    Optuna's own command must not open a study's journal, for it takes another kind of lock than the workers do.

    Examples:
        --study mask_ratio
        --study mask_ratio --port 8081 --writable
    """

    study: str
    """The study's name."""
    runs: Path = Path("runs")
    """Folder of all studies."""
    port: Annotated[int, PORT] = 8080
    """Port of this machine to listen on."""
    writable: bool = False
    """Let the browser change the study, too: notes, names, and its deletion."""


@reports_user_errors
def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    options = parse_flags(Options, "dashboard", arguments)
    try:
        storage = WithSearch(open_launched(StudyFolder.in_runs(options.runs, options.study)), options.study)
    except KeyError:
        raise UserError(f"the storage has no study {options.study}") from None
    guard = Guard(optuna_dashboard.wsgi(storage), None if options.writable else READING)
    with Server(guard, options.port) as server:
        print(address_lines(server.get_url(f"dashboard/studies/{storage.search_id}")), flush=True)
        with suppress(KeyboardInterrupt):
            server.serve_forever()


if __name__ == "__main__":
    main()
