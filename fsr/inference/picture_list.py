"""What was found in plain pictures, for other programs: classes and areas of each, in one JSON file."""

from typing import Any

from fsr.data.plain_pictures import PlainPictures
from fsr.files import write_json
from fsr.inference.image_record import ImageRecord
from fsr.inference.journal import Results


def write_picture_list(results: Results, source: PlainPictures, names: set[str], checkpoint: str) -> None:
    """Write pictures.json from the records of the pictures `names`."""
    records = sorted((one for one in results.records() if one["name"] in names), key=lambda record: record["name"])
    content = {
        "checkpoint": checkpoint,
        "class_names": source.class_names,
        "pictures": {record["name"]: _told(record, source) for record in records},
    }
    write_json(results.pictures_file, content)


def _told(record: ImageRecord, source: PlainPictures) -> dict[str, Any]:
    file = {"file": str(source.image_file(record["name"], ""))}
    if "skipped" in record:
        return file | {"skipped": record["skipped"]}
    (width, height), areas = record["size"], record["areas"]
    pixels = dict(zip(areas[::2], areas[1::2], strict=True))
    classes = {
        source.class_names[class_id]: {
            "id": class_id,
            "predicted": class_id in record["predicted"],
            "pixels": pixels.get(class_id, 0),
            "area": round(pixels.get(class_id, 0) / (width * height), 6),
        }
        for class_id in sorted({*pixels, *record["predicted"]})
    }
    return file | {"width": width, "height": height, "classes": classes}
