"""The command `fsr`: `fsr sweep --study mask_ratio`. A word stands for a module, which is run as `python -m` does."""

import runpy
import sys

COMMANDS = {
    "sweep": ("launch.sweep", "run a study: all trials, on Slurm or on this machine"),
    "status": ("launch.status", "how far a study is"),
    "doctor": ("launch.doctor", "what this cluster does to jobs; repair a damaged study"),
    "submit-train": ("launch.train", "one run on Slurm"),
    "submit-infer": ("launch.infer", "one inference on Slurm"),
    "report": ("analysis.report", "one page of a study"),
    "board": ("analysis.board", "a study's curves in TensorBoard"),
    "dashboard": ("analysis.dashboard", "a study in optuna-dashboard"),
    "notebooks": ("analysis.lab", "the notebooks in JupyterLab"),
    "load": ("analysis.load", "finished runs as tables"),
    "train": ("fsr.train", "one run on this machine"),
    "infer": ("fsr.infer", "one inference on this machine"),
    "compare": ("analysis.compare", "studies side by side"),
    "gallery": ("analysis.gallery", "pictures of one checkpoint"),
    "export": ("fsr.export", "a checkpoint as a file for others"),
    "prepare": ("fsr.data.prepare", "check a data set; write its lists and labels"),
    "synthetic": ("fsr.data.synthetic", "draw the synthetic data set"),
    "pretrained": ("fsr.pretrained", "fetch pretrained weights, where there is a network"),
}


def main() -> None:
    """Run the command that the first word names, with the other words."""
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in COMMANDS:
        module = COMMANDS[name][0]
        sys.argv[:2] = [f"{sys.argv[0]} {name}"]
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        return
    page = "\n".join(f"  {word:14}{text}" for word, (_, text) in COMMANDS.items())
    if name in ("-h", "--help"):
        print(f"usage: fsr COMMAND [--FLAG VALUE ...]   (each command has --help)\n\n{page}")
        return
    from fsr.errors import say_end
    from fsr.exit_codes import ExitCode

    say_end(ExitCode.MISTAKE, f"fsr expects a command as its first word, got {name}; allowed: {', '.join(COMMANDS)}")


if __name__ == "__main__":
    main()
