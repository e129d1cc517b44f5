"""Stands in for launch/worker/method.py: a run that counts steps, saves them, and needs neither torch nor data.

How it behaves is said by files in the data folder: `step_s` (seconds a step takes), `fail` (a loss that is not finite),
`error` (what a RuntimeError says), `score` (of every evaluation), `mistake`.
"""

import time

from fsr.errors import NotFiniteError, UserError
from fsr.files import open_file, write_atomically, write_json


def setting(config, name, default):
    file = config.data_folder / name
    return file.read_text() if file.exists() else default


def train(config, run, *, stop_requested, prune):
    mistake = setting(config, "mistake", None)
    if mistake:
        raise UserError(mistake)
    run.start(config)
    step = int(run.checkpoint_file.read_text()) if run.checkpoint_file.exists() else 0
    run.rewind(step) if run.metrics_file.exists() else None
    run.record_attempt("nothing", "fp32", step)
    with open_file(run.folder / "attempts", "a") as file:
        file.write(f"{step}\n")
    step_s = float(setting(config, "step_s", "0"))
    score = float(setting(config, "score", 1 - abs(config.mask_ratio - 0.5) - abs(config.momentum - 0.97)))

    def save():
        write_atomically(run.checkpoint_file, str(step).encode())

    while True:
        if stop_requested():
            save()
            return "stopped"
        if step and (step % config.eval_every == 0 or step == config.iterations):
            scores = {"val/seg_miou": score * step / config.iterations, "val/cam_miou": 0.5}
            run.log({"step": step, "perf/steps_per_s": 10.0, **scores})
            if prune(step, scores):
                save()
                return "pruned"
        if step == config.iterations:
            break
        if setting(config, "fail", None):
            raise NotFiniteError(f"loss nan at step {step}")
        if setting(config, "error", None):
            raise RuntimeError(setting(config, "error", None))
        time.sleep(step_s)
        step += 1
        if step % 5 == 0:
            save()
    write_json(run.result_file, {"val/seg_miou": score, "val/cam_miou": 0.5})
    return "finished"
