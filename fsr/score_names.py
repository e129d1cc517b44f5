"""Names of the scores of an evaluation, in records and results, and their titles for people."""

PREFIX = "val/"
SEG_MIOU = "val/seg_miou"
CAM_MIOU = "val/cam_miou"
AUX_CAM_MIOU = "val/aux_cam_miou"
TEACHER_SEG_MIOU = "val/teacher_seg_miou"
MAIN_SCORES = (SEG_MIOU, CAM_MIOU, AUX_CAM_MIOU)

TITLES = {
    SEG_MIOU: "segmentation mIoU",
    CAM_MIOU: "CAM mIoU",
    "val/cam_best_miou": "CAM mIoU at its best threshold",
    AUX_CAM_MIOU: "aux CAM mIoU",
    "val/aux_cam_best_miou": "aux CAM mIoU at its best threshold",
}


def is_score(name: str) -> bool:
    """Whether a value of a record is a score of an evaluation: all their names are `val/…`."""
    return name.startswith(PREFIX)


def score_name(score: str, network: str) -> str:
    """The name of a network's score: `val/SCORE` for the student, `val/teacher_SCORE` for the teacher."""
    return PREFIX + score if network == "student" else f"{PREFIX}{network}_{score}"


def title_of(score: str) -> str:
    """A score's name as people say it; one without a title of its own keeps its name."""
    return TITLES.get(score, score)


def score_text(score: float | None, digits: int = 3) -> str:
    """A score for people; a dash where it could not be measured, as all ground truth is ignored."""
    return "–" if score is None else f"{score:.{digits}f}"
