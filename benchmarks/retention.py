"""What --keep leaves of a study of ViT-B: `python benchmarks/retention.py FOLDER` (needs 5 GB of disk, 4 GB of memory).

Eight trials have the files that a run of the preset `voc` leaves, with weights that were drawn: six finished, one
pruned, one failed. Each checkpoint is a real one; the trials share them by hard links.
"""

import os
import sys
import time
from dataclasses import replace
from pathlib import Path

import optuna
import torch
from optuna.trial import TrialState

from fsr.checkpoint import TrainState, save_best
from fsr.config import voc
from fsr.run import Run
from launch.state.paths import StudyFolder
from launch.state.retention import Keep, Retention, clean_up_all
from launch.state.space import Need, gigabytes
from launch.state.storage import open_storage

STATES = [TrialState.COMPLETE] * 6 + [TrialState.PRUNED, TrialState.FAIL]
KEEPS: tuple[Keep, ...] = ("all", "best", "none")


def write_weights(run: Run) -> None:
    """The weights that a finished run leaves: two checkpoints and best.pt."""
    config = replace(voc(Path("data")), pretrained="none")
    state = TrainState(config, torch.device("cpu"))
    for parameter in state.student.parameters():
        parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None
    state.optimizer.step()  # so that the optimizer has its two values a weight
    run.folder.mkdir(parents=True)
    state.save(run)
    state.save(run)
    save_best(run.best_file, state, config, {})


def main() -> None:
    """Print bytes before and after, and how long the removal takes."""
    folder = Path(sys.argv[1])
    original = Run(folder / "original")
    write_weights(original)
    sizes = {file.name: file.stat().st_size for file in original.weight_files(best=True)}
    need = Need.of(voc(Path("data")))
    assert need is not None
    print(f"one run: {gigabytes(sum(sizes.values()))} ({sizes})")
    print(f"estimated without torch: {gigabytes(need.left('all'))}; while it trains {gigabytes(need.while_training)}")
    for keep in KEEPS:
        study_folder = StudyFolder(folder / keep)
        study_folder.folder.mkdir()
        study = optuna.create_study(storage=open_storage(study_folder.folder), study_name=keep, direction="maximize")
        for number, state in enumerate(STATES):
            run = study_folder.run(number)
            run.folder.mkdir()
            for name in sizes:
                os.link(original.folder / name, run.folder / name)
            study.tell(study.ask(), 0.5 if state == TrialState.COMPLETE else None, state=state)
        Retention(keep).write(study_folder)
        before = sum(study_folder.run(number).bytes() for number in range(len(STATES)))
        started = time.monotonic()
        clean_up_all(study_folder, study.get_trials(deepcopy=False))
        took = time.monotonic() - started
        after = sum(study_folder.run(number).bytes() for number in range(len(STATES)))
        print(f"--keep {keep}: {gigabytes(before)} before, {gigabytes(after)} after, in {took:.2f} s")


if __name__ == "__main__":
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    main()
