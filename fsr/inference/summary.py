"""Scores, tables, report and archive of an inference whose images are all done."""

from typing import Any

from fsr.console import console
from fsr.data.lists import Item
from fsr.data.plain_pictures import PlainPictures
from fsr.data.source import Source
from fsr.data.voc import VocSource
from fsr.files import write_atomically, write_json
from fsr.inference.answered import answered_images, finished
from fsr.inference.config import InferConfig
from fsr.inference.gallery import write_comparison, write_gallery
from fsr.inference.journal import Results
from fsr.inference.picture_list import write_picture_list
from fsr.inference.totals import Totals, as_csv, as_table
from fsr.inference.voc_archive import write_archive


def summarise(
    config: InferConfig,
    background: float,
    source: Source | PlainPictures,
    results: Results,
    items: list[Item],
    settings: dict[str, Any],
) -> None:
    """Write scores, tables, the report and the server's archive from the records of all images, and show them.

    `background` is the threshold up to which a CAM is background. No process may be writing results meanwhile.
    """
    results.remove_unfinished()
    names = {item.name for item in items}
    totals, pages = Totals(len(source.class_names), background), config.report or config.compare is not None
    answered = answered_images(results, names, str(config.checkpoint), totals, briefly=pages)
    scores, quality = totals.scores(), totals.cam_quality()
    facts = {
        "settings": settings | {"checkpoint": config.checkpoint, "bkg_threshold": background},
        "images": totals.images,
        "skipped": totals.skipped,
        "class_names": source.class_names,
    }
    write_json(results.scores_file, facts | {"scores": scores})
    if scores:
        write_json(results.cam_quality_file, facts | quality)
        write_json(results.errors_file, {"class_names": source.class_names, "errors": totals.error_scores()})
        write_atomically(results.confusion_file, totals.confusion_csv(source.class_names).encode())
        write_atomically(results.table_file, as_csv(scores, source.class_names).encode())
        console().print(as_table(scores, source.class_names))
    if config.report:
        write_gallery(config, source, answered)
    if config.compare:
        theirs = finished(config.compare)
        other = Totals(len(source.class_names), theirs["bkg_threshold"])
        beside = Results(config.compare), names, str(theirs.get("checkpoint")), other
        print(f"comparison: {write_comparison(config, source, answered, answered_images(*beside, briefly=True))}")
    if isinstance(source, PlainPictures):
        write_picture_list(results, source, names, str(config.checkpoint))
    elif isinstance(source, VocSource) and not source.has_ground_truth(config.infer_set) and source.is_voc:
        pack_for_server(config, results, totals, names)
    if scores and totals.errors.uncounted:
        print(
            f"{totals.errors.uncounted} images were answered by an earlier version, which counted nothing near "
            f"boundaries and no confidence: {results.errors_file} lacks these; another --output_folder has them"
        )
    if totals.skipped:
        print(f"{len(totals.skipped)} of {totals.images} images could not be read and are left out:")
        for reason in totals.skipped.values():
            print(f"  {reason}")
    print(f"{totals.images} images; results in {results.folder}")


def pack_for_server(config: InferConfig, results: Results, totals: Totals, names: set[str]) -> None:
    """Write the archive for VOC's evaluation server; none if images were skipped, which the server does not accept."""
    if totals.skipped:
        print(f"no archive for the server: it expects all {len(names)} images, {len(totals.skipped)} were skipped")
        return
    kind = "crf" if config.crf else "segmentation"
    write_archive(results.archive_file, {name: results.label_file(kind, name) for name in sorted(names)})
    print(f"archive for VOC's evaluation server, read back: {results.archive_file}")
