"""Stands in for launch/worker/method.py in Slurm's jobs: a run whose state is a chain of digests.

So a step that is lost, repeated or done from a wrong checkpoint shows in its score. Needs neither torch nor data.

Files in the data folder say how it behaves: `step_s`; `save_s`
(a save on request takes that long); `broken_node` (its GPUs fail); `hungry` (trial 0 takes more memory than it may).
A file `die_before_attempt` in the study's folder kills the next worker between its claim and its attempt's
beginning.
"""

import hashlib
import json
import os
import signal
import time
from pathlib import Path

from fsr.errors import UnreadableError
from fsr.files import atomic_file, write_json
from launch.state.attempts import AttemptLog


def die_before_attempt(begin):
    def dying(self, *arguments):
        marker = self._run.folder.parent / "die_before_attempt"
        if marker.exists():
            marker.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        begin(self, *arguments)

    return dying


AttemptLog.begin = die_before_attempt(AttemptLog.begin)


def score(digest):
    return int(digest[:8], 16) / 16**8


def train(config, run, *, stop_requested, prune):
    if os.environ.get("RANK", "0") != "0":
        while run.result() is None and not stop_requested():
            time.sleep(0.1)
        return "stopped" if run.result() is None else "finished"
    said = {file.name: file.read_text() for file in Path(config.data_folder).iterdir()}
    if "step_s" not in said:
        raise UnreadableError(f"data folder {config.data_folder} must hold step_s, which is missing")
    run.start(config)
    state = {"step": 0, "digest": hashlib.sha256(str(config.mask_ratio).encode()).hexdigest()}
    if run.checkpoint_file.exists():
        state = json.loads(run.checkpoint_file.read_text())
    run.record_attempt("nothing", "fp32", state["step"])
    run.rewind(state["step"])

    def save(seconds=0.0):
        with atomic_file(run.checkpoint_file) as file:
            time.sleep(seconds)
            file.write(json.dumps(state).encode())

    while True:
        if stop_requested():
            save(float(said.get("save_s", 0)))
            return "stopped"
        if state["step"] == 7 and said.get("broken_node") == os.environ["SLURMD_NODENAME"]:
            raise RuntimeError("CUDA error: uncorrectable ECC error encountered")
        if state["step"] == 7 and "hungry" in said and run.folder.name == "trial_0000":
            bytearray(b"x" * 2_000_000_000)
        if state["step"] and state["step"] % config.eval_every == 0:
            scores = {"val/seg_miou": score(state["digest"]), "val/cam_miou": 0.5}
            run.log({"step": state["step"], "perf/steps_per_s": 10.0, **scores})
            prune(state["step"], scores)
        if state["step"] % 5 == 0:
            save()
        if state["step"] == config.iterations:
            break
        time.sleep(float(said["step_s"]))
        state["step"] += 1
        state["digest"] = hashlib.sha256(state["digest"].encode()).hexdigest()
        run.log({"step": state["step"], "digest": score(state["digest"])})
    write_json(run.result_file, {"val/seg_miou": score(state["digest"]), "val/cam_miou": 0.5})
    return "finished"
