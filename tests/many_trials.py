"""A study of many trials as it might have come out: five loss weights, of which one matters; written, not trained."""

import json
import math
from dataclasses import dataclass

import numpy as np
import optuna
import torch
from optuna.distributions import FloatDistribution
from studies import attempt

from fsr.config import synthetic
from fsr.data.voc import CLASS_NAMES
from fsr.event_file import EventFile
from launch.state.paths import StudyFolder
from launch.state.storage import open_storage
from launch.state.target import Target
from sweeps.loss_weights import WEIGHTS
from sweeps.loss_weights import study as loss_weights

STEPS = range(24, 241, 24)
TILES, SIDE = 7, 96


def write_study(runs, trials=40, seeds=8, best=2, pictures=3, name="loss_weights", classes=6):
    """Its folder: a search with pruned and failed trials, and its best settings and trial 0's with fresh seeds."""
    rng = np.random.default_rng(0)
    folder = StudyFolder(runs / name)
    folder.folder.mkdir(parents=True)
    base = synthetic(runs).to_json() | {"iterations": STEPS[-1]}
    space = loss_weights.space(synthetic(runs))
    launched = {"started": "2026-11-25T08:00:00Z", "git_commit": "0123456789abcdef", "git_dirty": False}
    launched["command"] = ["fsr sweep", "--study", name, "--dataset", "synthetic", "--data_folder", str(runs)]
    launched["command"] += ["--iterations", "240", "--trials", str(trials), "--cluster", "local"]
    definition = {"study": name, "base": base, "metric": loss_weights.metric, "space": space, "launched": launched}
    folder.study_file.write_text(json.dumps(definition))
    study = optuna.create_study(study_name=name, storage=open_storage(folder.folder), direction="maximize")
    ranges = {name: optuna.distributions.json_to_distribution(json.dumps(space[name])) for name in WEIGHTS}
    made, scores = Made(folder, study, base, rng, pictures, classes), {}
    for number in range(trials):
        params = {name: base[name] for name in WEIGHTS} if number == 0 else drawn(rng, ranges)
        state = "complete" if number < 3 else rng.choice(["complete", "pruned", "fail"], p=[0.7, 0.25, 0.05])
        scores[number] = add(made, params, state)
    chosen = sorted((n for n in scores if scores[n] is not None and n), key=lambda n: -scores[n])[:best]
    for seed in range(1, seeds + 1):
        for number in (0, *chosen):
            params = study.get_trials(deepcopy=False)[number].params
            add(made, params, "complete", seed=seed, repeats=number)
    Target(len(study.get_trials(deepcopy=False)), len(study.get_trials(deepcopy=False))).write(folder)
    return folder


def drawn(rng, ranges):
    """A setting, log-uniformly."""
    assert all(isinstance(range_, FloatDistribution) for range_ in ranges.values())
    return {n: float(np.exp(rng.uniform(math.log(r.low), math.log(r.high)))) for n, r in ranges.items()}


@dataclass
class Made:
    """What the trials of a study have in common."""

    folder: StudyFolder
    study: optuna.Study
    base: dict
    rng: np.random.Generator
    pictures: int
    classes: int


def add(made, params, state, **attributes):
    """A trial with its run; its score, if it finished."""
    folder, study, base, rng = made.folder, made.study, made.base, made.rng
    ranges = {n: FloatDistribution(base[n] / 4, base[n] * 4, log=True) for n in params}
    easy = [0.0, -0.04, 0.05, 0.02, -0.06, 0.03, 0.0, -0.03, 0.04][attributes.get("seed", 0) % 9]
    level = 0.46 + 0.09 * math.log(params["w_aff"] / 0.2, 4) - 0.02 * abs(math.log(params["w_seg"] / 0.1, 4))
    level += easy + rng.normal(0, 0.02)
    study.enqueue_trial(params, user_attrs=attributes)
    trial = study.ask(ranges)
    run = folder.run(trial.number)
    run.folder.mkdir()
    steps = {"complete": STEPS, "pruned": STEPS[:5], "fail": STEPS[:1]}[state]
    records, score, cam = [], None, None
    for step in steps:
        grown = 1 - math.exp(-3 * step / STEPS[-1])
        score, cam = level * grown + rng.normal(0, 0.006), (level + 0.05) * grown + rng.normal(0, 0.006)
        perf = {"perf/steps_per_s": 1.9 + rng.normal(0, 0.1), "perf/stall_fraction": 0.01, "perf/peak_memory_gb": 0.9}
        records.append({"step": step, "train/loss": 2.5 - grown, **perf})
        records.append(
            {"step": step, "val/seg_miou": score, "val/cam_miou": cam, "val/aux_cam_miou": max(0, cam - 0.1)}
        )
    run.metrics_file.write_text("".join(json.dumps(record) + "\n" for record in records))
    run.quality_file.write_text(json.dumps(quality(steps[-1], cam, made.classes, rng)))
    start = 1764057600.0 + 130 * trial.number
    cause = {"complete": "finished", "pruned": "pruned", "fail": "not finite"}[state]
    run_attempts = [attempt(start, start + 0.5 * steps[-1], 0, steps[-1], cause, ranks=1)]
    (run.folder / "attempts.json").write_text(json.dumps(run_attempts))
    if made.pictures:
        events = EventFile(run.folder, 0)
        for image in range(made.pictures):
            events.image(f"validation/synthetic_{image:04d}", strip(image, trial.number), steps[-1])
        events.close()
    if state == "complete":
        study.tell(trial, score)
        return score
    if state == "fail":
        trial.set_user_attr("error", "not finite: loss nan at step 7")
    study.tell(trial, state=optuna.trial.TrialState[state.upper()])
    return None


def quality(step, level, classes, rng):
    """quality.json of an evaluation."""
    names = ("background", *CLASS_NAMES[1:classes]) if classes <= 21 else [f"class {n}" for n in range(classes)]
    iou = [float(np.clip(level + rng.normal(0, 0.08), 0, 1)) for _ in names]
    wrong = [float((1 - value) * 0.6) for value in iou]
    errors = {"precision": iou, "recall": iou, "false_positive": wrong, "false_negative": [0.4 * (1 - v) for v in iou]}
    best = 0.45 + rng.normal(0, 0.03)
    curve = [[round(0.05 * n, 2), float(max(0, level + 0.04 - 1.5 * (0.05 * n - best) ** 2))] for n in range(1, 20)]
    cam = {"miou": level, "iou": iou, **errors, "threshold": 0.35, "curve": curve}
    networks = {
        n: {"segmentation": {"miou": level, "iou": iou}, "cam": cam, "aux_cam": cam} for n in ("student", "teacher")
    }
    return {"step": step, "class_names": list(names), "networks": networks}


def strip(image, trial):
    """A picture of seven tiles: a disc on a gradient, and what a network might make of it."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, SIDE), torch.linspace(-1, 1, SIDE), indexing="ij")
    ground = torch.stack([0.5 + 0.3 * x, 0.5 + 0.3 * y, torch.full_like(x, 0.2 + 0.3 * image)])
    disc = ((x - 0.3 * image + 0.3) ** 2 + y**2 < 0.3).float()
    heat = torch.exp(-((x - 0.3 * image + 0.3) ** 2 + (y - 0.02 * (trial % 9)) ** 2) / 0.3)
    colour = torch.tensor([0.75, 0.25, 0.2])[:, None, None]
    picture = ground * (1 - disc) + colour * disc
    tiles = [picture, 0.5 * picture + 0.5 * heat, 0.5 * picture + 0.5 * heat.sqrt(), picture * 0.4, disc * colour]
    return torch.cat([*tiles, (heat > 0.4).float() * colour, disc * colour], dim=2)
