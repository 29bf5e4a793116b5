"""Draws images of a dataset on one sheet, evenly over its classes, for people to look at."""

import io
from functools import partial

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ssl_core.data.dataset import Source
from ssl_core.data.decoding.decode import UNREADABLE, read_image
from ssl_core.data.split import Split

COLUMNS, ROWS = 8, 8
SIDE, CAPTION, GAP = 128, 18, 8  # pixels: of a picture, below it, and between pictures


def contact_sheet(source: Source) -> bytes:
    """Draws up to 64 training images, each with its class, as many of one class as of another.

    Args:
        source: The dataset.

    Returns:
        A PNG file. Images that cannot be decoded have a gray place.

    Raises:
        StorageError: If a store fails.
    """
    chosen = choose_evenly(source, COLUMNS * ROWS)
    width, height = SIDE + GAP, SIDE + CAPTION + GAP
    columns = min(COLUMNS, len(chosen))
    sheet = Image.new("RGB", (columns * width, -(-len(chosen) // columns) * height), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for place, i in enumerate(chosen):
        left, top = place % columns * width + GAP // 2, place // columns * height + GAP // 2
        tile = _tile(source.train, i)
        sheet.paste(tile, (left + (SIDE - tile.width) // 2, top + (SIDE - tile.height) // 2))
        draw.text((left, top + SIDE + 1), _shorten(_caption(source, i), font), "black", font)
    file = io.BytesIO()
    sheet.save(file, "PNG", optimize=True)
    return file.getvalue()


def choose_evenly(source: Source, count: int) -> list[int]:
    """Chooses training images of all classes alike, or of evenly spaced classes if there are more than `count`.

    Unlabeled images count as one more class. An image with several labels counts for the first of them.

    Args:
        source: The dataset.
        count: How many to choose, at most.

    Returns:
        Their numbers, by class and then by number.
    """
    labels = source.train.labels
    first = np.where(source.train.labeled, labels.argmax(1), -1) if labels.ndim == 2 else labels
    classes = np.unique(first)
    if len(classes) > count:
        classes = classes[_evenly(len(classes), count)]
    members = [np.flatnonzero(first == kind) for kind in classes]
    room, shares = count, {}
    for left, place in zip(range(len(members), 0, -1), sorted(range(len(members)), key=lambda m: len(members[m]))):
        shares[place] = min(len(members[place]), -(-room // left))  # small classes leave their room to the others
        room -= shares[place]
    return [int(i) for place, of in enumerate(members) for i in of[_evenly(len(of), shares[place])]]


def _evenly(total: int, count: int) -> np.ndarray:
    return np.linspace(0, total - 1, count, dtype=np.int64)


def _tile(split: Split, i: int) -> Image.Image:
    try:
        image = read_image(partial(split.open, i), SIDE, levels=split.levels)
    except UNREADABLE:
        return Image.new("RGB", (SIDE, SIDE), "lightgray")
    scale = SIDE / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.NEAREST if scale > 1 else Image.Resampling.BILINEAR)


def _caption(source: Source, i: int) -> str:
    label = source.train.labels[i]
    if not source.train.labeled[i]:
        return "without a label" if source.classes else ""
    return ", ".join(source.classes[kind] for kind in np.flatnonzero(label)) if label.ndim else source.classes[label]


def _shorten(text: str, font: ImageFont.ImageFont | ImageFont.FreeTypeFont) -> str:
    text = repr(text)[1:-1]  # one line whatever the name of a class holds
    while text and font.getlength(text) > SIDE:
        text = text.removesuffix("…")[:-1] + "…" if len(text) > 1 else ""
    return text
