"""The command `fsr`: `fsr sweep --study mask_ratio`. A word stands for a module, which is run as `python -m` does."""

import runpy
import sys

COMMANDS = {
    "Studies": {
        "sweep": ("launch.sweep", "run a study: all trials, on Slurm or on this machine"),
        "infer --study": ("launch.infer_study", "scores of its checkpoints, on Slurm or on this machine"),
        "table": ("analysis.evaluation", "these scores as a paper's table, published ones beside them"),
        "status": ("launch.status", "how far a study is"),
        "report": ("analysis.report", "one page of a study"),
        "board": ("analysis.board", "a study's curves and pictures in TensorBoard"),
        "dashboard": ("analysis.dashboard", "a study's search in optuna-dashboard"),
        "notebooks": ("analysis.lab", "the notebooks in JupyterLab"),
        "compare": ("analysis.compare", "studies side by side"),
        "load": ("analysis.load", "finished runs as tables"),
        "figures": ("analysis.figures", "the main plots of studies as PNG files"),
    },
    "One run": {
        "cost": ("fsr.cost", "what a run costs: operations, memory, hours"),
        "train": ("fsr.train", "train on this machine"),
        "infer": ("fsr.infer", "scores, label maps and report of a checkpoint, on this machine"),
        "submit-train": ("launch.train", "train on Slurm"),
        "submit-infer": ("launch.infer", "infer on Slurm, by several workers"),
        "gallery": ("analysis.gallery", "pictures of one checkpoint"),
        "export": ("fsr.export", "a checkpoint as files for others"),
    },
    "Data, weights, cluster": {
        "prepare": ("fsr.data.prepare", "check a data set; write its lists and labels"),
        "synthetic": ("fsr.data.synthetic", "draw the synthetic data set"),
        "pretrained": ("fsr.pretrained", "fetch pretrained weights, where there is a network"),
        "pretrain": ("fsr.pretrain", "train the start of the synthetic set, --pretrained synthetic"),
        "doctor": ("launch.doctor", "what this cluster does to jobs; repair a damaged study"),
    },
}
MODULES = {name: module for group in COMMANDS.values() for name, (module, _) in group.items()}


def main() -> None:
    """Run the command that the first word names, with the other words."""
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in MODULES:
        module = MODULES[name]
        if any(word.partition("=")[0] == "--study" for word in sys.argv[2:]):
            module = MODULES.get(f"{name} --study", module)
        sys.argv[:2] = [f"{sys.argv[0]} {name}"]
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        return
    from fsr.errors import reports_user_errors

    reports_user_errors(explain)(name)


def explain(name: str) -> None:
    """Print all commands. Raises UserError, with the nearest ones, for a word that is none."""
    from difflib import get_close_matches

    from fsr.errors import UserError
    from fsr.next_command import next_command

    if name in ("-h", "--help", "help"):
        print(f"usage: {next_command('COMMAND')} [--FLAG VALUE ...]\n\nEach command has --help.")
        for title, group in COMMANDS.items():
            print(f"\n{title}:")
            for word, (_, text) in group.items():
                print(f"  {word:14}{text}")
        return
    near = get_close_matches(name, MODULES, n=3) or MODULES
    raise UserError(f"fsr has no command {name}; nearest: {', '.join(near)} (all: {next_command('--help')})")


if __name__ == "__main__":
    main()
