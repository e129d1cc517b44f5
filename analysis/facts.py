"""What studies searched, and on what: the beginning of notebooks and of the study page."""

from pathlib import Path

import pandas as pd

from analysis.load import definition_of, study_folder
from fsr.config import TrainConfig


def facts(studies: list[str], runs: Path) -> pd.DataFrame:
    """What each study searched, on which data and for how long: a row a study."""
    rows = {}
    for study in studies:
        definition = definition_of(study_folder(study, runs))
        base, launched = definition["base"], definition.get("launched", {})
        config = TrainConfig.from_json(base)
        rows[study] = {
            "data": f"{base['dataset']} ({base['train_set']} → {base['val_set']})",
            "searched": ", ".join(definition["space"]),
            "metric": definition["metric"],
            "steps": base["iterations"],
            "batch": config.ranks * config.batch_size,
            "backbone": base["backbone"],
            "precision": base["precision"],
            "launched": launched.get("started", "")[:10],
            "commit": str(launched.get("git_commit"))[:8] + (" + changes" if launched.get("git_dirty") else ""),
        }
    table: pd.DataFrame = pd.DataFrame(rows)
    return table
