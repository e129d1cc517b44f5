"""The results as tables in Markdown, with what follows from two of them: shares of the limits, hours of whole runs."""

from typing import Any

from fsr.config import PRESETS

Rows = dict[str, dict[str, Any]]
LONG = ("top", "bytes", "failed", "batch")  # not for a column


def report(results: dict[str, Any]) -> str:
    """One page."""
    stages: dict[str, Rows] = results["stages"]
    parts = [
        f"# {results['card']}, {results['date']}",
        f"`make gpu`, commit {results['commit']}, driver {results['driver']}. Written by `benchmarks/gpu`; the raw "
        "numbers are in the JSON file beside it.",
    ]
    for name, rows in stages.items():
        parts += [f"## {name}", table(derived(name, rows, stages.get("machine", {})))]
        parts += [f"- **{row}** failed: `{values['failed']}`" for row, values in rows.items() if "failed" in values]
        parts += [
            f"{row}:\n\n" + "\n".join(f"- {kernel}" for kernel in v["top"]) for row, v in rows.items() if "top" in v
        ]
    if hours := projected(stages.get("step's speed", {})):
        parts += [
            "## Hours of a whole run",
            "Steps as measured, all of them the costliest kind; without evaluations, checkpoints and communication.",
            table(hours),
        ]
    if problems := wrong(stages):
        parts += ["## Not as it should be", "\n".join(f"- {problem}" for problem in problems)]
    seconds = ", ".join(f"{name} {taken:.0f} s" for name, taken in results["seconds"].items())
    return "\n\n".join([*parts, f"Took {seconds}."]) + "\n"


def wrong(stages: dict[str, Rows]) -> list[str]:
    """What failed, and what does not have the bits that it should have."""
    return [
        f"{stage}: {row}"
        for stage, rows in stages.items()
        for row, values in rows.items()
        if "failed" in values or values.get("ok") is False
    ]


def derived(stage: str, rows: Rows, machine: Rows) -> Rows:
    """The rows of a stage with their shares of what the machine can do, where that is known."""
    copied = machine.get("copy", {}).get("gb_s")
    product = machine.get("product in bf16", {}).get("tflop_s")
    tflop = max((row.get("tflop_of_ours", 0) / row["batch"] for row in rows.values() if "batch" in row), default=0)

    def more(row: dict[str, Any]) -> dict[str, Any]:
        if stage == "operators' speed" and copied and "bytes" in row:
            return {"share of bandwidth": f"{row['bytes'] / copied / 1e6 / row['ms']:.1%}"}
        if stage == "step's speed" and "ms" in row:
            found = {"images/s": round(1e3 * row["batch"] / row["ms"], 1)}
            done = row.get("tflop", tflop * row["batch"])
            return found | ({"share of bf16": f"{1e3 * done / row['ms'] / product:.1%}"} if product and done else {})
        return {}

    return {name: row | more(row) for name, row in rows.items()}


def projected(rows: Rows) -> Rows:
    """Hours of the presets' runs by the mode of the step."""
    found = {}
    for preset in (PRESETS["voc"](), PRESETS["coco"]()):
        for name, row in rows.items():
            if "ms" not in row:
                continue
            mode, hours = name.split(", batch ")[0], preset.iterations * row["ms"] / 3.6e6
            columns = found.setdefault(f"{preset.dataset}: {mode}", {})
            if row["batch"] == preset.batch_size:
                columns[f"{preset.ranks} GPUs × {preset.batch_size} images"] = round(hours, 1)
                columns[f"1 GPU, {preset.ranks} × {preset.batch_size} images"] = round(preset.ranks * hours, 1)
            if row["batch"] == preset.batch_size * preset.ranks:
                columns[f"1 GPU, {row['batch']} images at once"] = round(hours, 1)
    return found


def table(rows: Rows) -> str:
    """Rows with one column for every field that any of them has."""
    columns = list(dict.fromkeys(name for row in rows.values() for name in row if name not in LONG))
    lines = ["| | " + " | ".join(columns) + " |", "|---" * (1 + len(columns)) + "|"]
    for name, row in rows.items():
        lines.append(f"| {name} | " + " | ".join(said(row.get(column, "")) for column in columns) + " |")
    return "\n".join(lines)


def said(value: object) -> str:
    """A cell."""
    if isinstance(value, bool):
        return "yes" if value else "**no**"
    return str(value)
