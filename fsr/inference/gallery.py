"""The report of an inference: its scores, and the worst images of each class."""

from collections import defaultdict
from pathlib import Path

from fsr.data.images import refusing
from fsr.inference.config import InferConfig
from fsr.inference.image_record import ImageRecord
from fsr.inference.journal import Results
from fsr.inference.report import GalleryImage, write_report
from fsr.inference.totals import TITLES, Totals
from fsr.regular_file import read_regular

UNION = "false positives and negatives as shares of the union of ground truth and CAM"


def write_gallery(
    config: InferConfig, results: Results, totals: Totals, images: list[ImageRecord], class_names: tuple[str, ...]
) -> None:
    """Write report.html from the saved results. Opens no image and runs no network.

    `images` are the records of the journals, `without_counts`.
    """
    shown = worst_of_each_class(images, config.report_images)
    made = results.made()
    names = ("weights", "scales", "precision", "crf", "pseudo_labels")
    chosen = {name: getattr(config, name) for name in names} | {"bkg_threshold": totals.threshold}
    scores = totals.scores()
    main = ("crf", "segmentation") if config.crf else ("segmentation",)
    order = [kind for kind in (*main, *TITLES) if kind in scores]
    columns = ["image", "ground truth", "CAM", TITLES["segmentation"]] + [TITLES["crf"]] * config.crf
    write_report(
        results.report_file,
        title=f"{config.dataset} {config.infer_set}: {config.checkpoint}",
        facts={
            "checkpoint": f"{config.checkpoint} (SHA-256 {str(made['settings']['checkpoint_sha256'])[:12]}…)",
            "date": str(made["provenance"].get("started")),
            "commit": str(made["provenance"].get("git_commit")),
            "settings": ", ".join(f"{name} {value}" for name, value in chosen.items() if value is not None),
            "skipped": f"{len(totals.skipped)} images that could not be read",
            "CAM errors": UNION,
        },
        class_names=class_names,
        scores={TITLES[kind]: scores[kind] for kind in dict.fromkeys(order)},
        cam_quality={TITLES[kind]: q for kind, q in totals.cam_quality().items() if q.get("best_miou") is not None},
        columns=columns,
        gallery=[
            GalleryImage(
                record["name"],
                tuple(record.get("classes", ())),
                record.get("iou"),
                _preview(results.preview_file(record["name"])),
            )
            for record in shown
        ],
        images=totals.images,
    )


def _preview(file: Path) -> bytes:
    with refusing(file, "image"):
        return read_regular(file)


def without_counts(record: ImageRecord) -> ImageRecord:
    """What the gallery needs of an image's record: so little that those of a whole data set can be held."""
    brief = record.copy()
    brief.pop("counts", None)
    return brief


def worst_of_each_class(images: list[ImageRecord], limit: int) -> list[ImageRecord]:
    """At most `limit` images: the worst of each class in turn, so that no class is missing; skipped images are not."""
    brief = [record for record in images if "skipped" not in record]
    brief.sort(key=lambda record: (record.get("iou") is None, record.get("iou") or 0, record["name"]))
    places: dict[int, int] = defaultdict(int)  # how many worse images a class has
    ranked = []
    for record in brief:
        classes = record.get("classes") or [0]
        ranked.append((min(places[class_id] for class_id in classes), record))
        for class_id in classes:
            places[class_id] += 1
    ranked.sort(key=lambda pair: pair[0])
    return [record for _, record in ranked[:limit]]
