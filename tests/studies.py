"""Studies to analyse: generated ones with a trial in every state, and a real one swept with the tiny method."""

import json
import signal
import subprocess
import time
from pathlib import Path

import optuna
from method_checkout import surroundings, sweep_command

from fsr.config import synthetic
from launch.state.paths import StudyFolder
from launch.state.storage import open_storage

METHOD = Path(__file__).parent / "tiny.py"
NAMES = ("background", "aeroplane", "bicycle")
POINTS = 20


def quality(step):
    iou = [0.9, 0.4, None]
    errors = {name: [0.1, 0.2, None] for name in ("precision", "recall", "false_positive", "false_negative")}
    cam = {"miou": 0.5, "iou": iou, **errors, "threshold": 0.35, "curve": [[0.05 * i, 0.01 * i] for i in range(1, 20)]}
    networks = {
        name: {"segmentation": {"miou": 0.6, "iou": iou}, "cam": cam, "aux_cam": cam} for name in ("student", "teacher")
    }
    return {"step": step, "class_names": NAMES, "networks": networks}


def attempt(started, ended, first_step, reached, cause, **more):
    fields = {"job": "7_1", "restart": 0, "node": "n1", "pid": 1, "ranks": 2, "started": started, "ended": ended}
    return fields | {"first_step": first_step, "reached": reached, "cause": cause, "detail": "", **more}


def write_run(run, points=POINTS, attempts=(), **scores):
    """The records of a run that was recorded `points` times and evaluated each time."""
    run.folder.mkdir()
    records = []
    for step in range(10, 10 * points + 10, 10):
        train = {name: 0.5 + step for name in ("loss", "cls_top", "cls_aux", "class", "patch", "aff", "seg", "reg")}
        perf = {"perf/steps_per_s": 2.0, "perf/stall_fraction": 0.01, "perf/peak_memory_gb": 0.5}
        records.append({"step": step, **{f"train/{name}": value for name, value in train.items()}, **perf})
        found = {"val/seg_miou": step / 1000, "val/cam_miou": 0.5, "val/aux_cam_miou": 0.4} | scores
        records.append({"step": step, **found})
    run.metrics_file.write_text("".join(json.dumps(record) + "\n" for record in records))
    run.quality_file.write_text(json.dumps(quality(10 * points)))
    (run.folder / "attempts.json").write_text(json.dumps(list(attempts)))


def new_study(runs, name="smoke"):
    folder = StudyFolder(runs / name)
    folder.folder.mkdir(parents=True)
    base = synthetic(runs).to_json() | {"iterations": 200}
    definition = {"study": name, "base": base, "metric": "val/seg_miou", "space": {"mask_ratio": {}}}
    folder.study_file.write_text(json.dumps(definition))
    study = optuna.create_study(study_name=name, storage=open_storage(folder.folder), direction="maximize")
    return folder, study


def add_trial(study, mask_ratio, state="complete", value=0.2, **attributes):
    study.enqueue_trial({"mask_ratio": mask_ratio}, user_attrs=attributes)
    if state == "waiting":
        return
    trial = study.ask()
    trial.suggest_float("mask_ratio", 0.05, 0.95)
    if state == "complete":
        study.tell(trial, value)
    elif state != "running":
        if state == "fail":
            trial.set_user_attr("error", "not finite: loss nan at step 7")
        study.tell(trial, state=optuna.trial.TrialState[state.upper()])


def add_run(folder, study, mask_ratio, value, **attributes):
    """A finished trial with its run; other scores may be given as `cam_miou`."""
    number = len(study.get_trials(deepcopy=False))
    scores = {f"val/{name}": attributes.pop(name) for name in ("cam_miou", "aux_cam_miou") if name in attributes}
    write_run(folder.run(number), attempts=[attempt(0, 36, 0, 200, "finished")], **({"val/seg_miou": value} | scores))
    add_trial(study, mask_ratio, value=value, **attributes)


def sweep_for_real(data_folder, runs):
    """The study smoke with the tiny method: six trials, one of them interrupted, and the best again with two seeds."""
    command = [*sweep_command(METHOD), "--study", "smoke", "--data_folder", data_folder, "--runs", runs]
    command += ["--iterations", "40", "--cluster", "local"]
    first = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **surroundings(METHOD)
    )
    metrics = StudyFolder(runs / "smoke").run(0).metrics_file
    deadline = time.monotonic() + 120
    while not metrics.exists() or len(metrics.read_text().splitlines()) < 8:
        assert time.monotonic() < deadline and first.poll() is None, "waited in vain"
        time.sleep(0.05)
    first.send_signal(signal.SIGINT)
    output, _ = first.communicate(timeout=120)
    assert first.returncode == 130, output
    for options in ([], ["--repeat", "2"]):
        done = subprocess.run([*command, *options], capture_output=True, text=True, **surroundings(METHOD))
        assert done.returncode == 0, done.stdout + done.stderr
