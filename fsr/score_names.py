"""What the scores of an evaluation are called: in records and results, and as people say it."""

SEG_MIOU = "val/seg_miou"
CAM_MIOU = "val/cam_miou"
AUX_CAM_MIOU = "val/aux_cam_miou"
MAIN_SCORES = (SEG_MIOU, CAM_MIOU, AUX_CAM_MIOU)

TITLES = {
    SEG_MIOU: "segmentation mIoU",
    CAM_MIOU: "CAM mIoU",
    "val/cam_best_miou": "CAM mIoU at its best threshold",
    AUX_CAM_MIOU: "aux CAM mIoU",
    "val/aux_cam_best_miou": "aux CAM mIoU at its best threshold",
}


def is_score(name: str) -> bool:
    """Whether a value of a record is a score of an evaluation: all of them are called `val/…`."""
    return name.startswith("val/")


def title_of(score: str) -> str:
    """A score's name as people say it; one without a title of its own keeps its name."""
    return TITLES.get(score, score)
