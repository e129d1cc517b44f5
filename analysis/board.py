"""A study or a run in TensorBoard: `fsr board --study NAME`, for this machine's browser."""

if __name__ == "__main__":
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parent.parent)  # this checkout, whatever Python it is
    from fsr import beginning

    beginning.begin("board")

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

from analysis.address import address_lines
from analysis.guard import READING, Application, Guard, Server
from analysis.named_runs import NamedRuns
from fsr.bounds import PORT, Bounded
from fsr.command import parse_flags
from fsr.errors import UserError, reports_user_errors
from fsr.run import Run
from launch.state.paths import StudyFolder, no_study

# So many samples that it is all points and pictures: TensorBoard would draw other steps in each run. (0, which its help
# calls no limit, shows no curve at all in 2.21.)
SAMPLES = "scalars=100000,images=1000"


@dataclass(frozen=True, kw_only=True)
class Options(Bounded):
    """Show the curves, pictures and hyper-parameters of a study, or of a single run, in the browser. Ctrl-C ends it.

    It answers whoever has the address that it prints.

    Examples:
        --study mask_ratio
        --study voc --runs runs --port 6007
    """

    study: str
    """Name of the study, or of the run's folder."""
    runs: Path = Path("runs")
    """Folder of all studies."""
    port: Annotated[int, PORT] = 6006
    """Port of this machine to listen on."""


@contextmanager
def shown(options: Options) -> Iterator[Path]:
    """The folder to show: a run's own, or links to a study's runs that say what each tried.

    Raises UserError if there is no study and no run.
    """
    study = StudyFolder.in_runs(options.runs, options.study)
    if not study.study_file.exists():
        if not Run(study.folder).config_file.exists():
            raise UserError(no_study(study, "study and no run"))
        yield study.folder
        return
    with TemporaryDirectory() as links:
        runs = NamedRuns(study, Path(links))
        runs.refresh()
        ended = threading.Event()
        threading.Thread(target=runs.keep_fresh, args=(ended,), daemon=True).start()
        try:
            yield Path(links)
        finally:
            ended.set()


@reports_user_errors
def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    options = parse_flags(Options, "board", arguments)
    with shown(options) as folder:
        from tensorboard import default
        from tensorboard.program import TensorBoard

        # It asks by POST too, but changes nothing.
        def server(application: Application, flags: Any) -> Server:
            return Server(Guard(application, READING | {"POST"}), options.port)

        board = TensorBoard(plugins=default.get_plugins(), server_class=server)
        # Its fast loader is a process of its own, whose port tells every user of this machine what the study holds.
        board.configure(("board", f"--logdir={folder}", "--load_fast=false", f"--samples_per_plugin={SAMPLES}"))
        print(address_lines(board.launch()), flush=True)
        with suppress(KeyboardInterrupt):
            threading.Event().wait()


if __name__ == "__main__":
    main()
