"""Sample pictures of a pretext task on one sheet, for people."""

import io

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

SIDE, COLUMNS, CAPTION = 160, 4, 18  # pixels a picture is high, pictures in a row, pixels of caption


def sample_sheet(pictures: list[tuple[Tensor, str]]) -> bytes:
    """[([h, w, 3] uint8, caption)] -> a PNG with the pictures side by side, enlarged without smoothing."""
    font = ImageFont.load_default(13)
    cells = []
    for pixels, caption in pictures:
        image = Image.fromarray(pixels.numpy())
        image = image.resize((round(image.width * SIDE / image.height), SIDE), Image.NEAREST)
        width = max(image.width, round(font.getlength(caption)) + 4)
        cell = Image.new("RGB", (width, SIDE + CAPTION), "white")
        cell.paste(image, ((width - image.width) // 2, 0))
        ImageDraw.Draw(cell).text((2, SIDE + 1), caption, "black", font)
        cells.append(cell)
    width = max(cell.width for cell in cells) + 8
    rows = -(-len(cells) // COLUMNS)
    sheet = Image.new("RGB", (width * min(COLUMNS, len(cells)), rows * (SIDE + CAPTION + 8)), "white")
    for i, cell in enumerate(cells):
        sheet.paste(cell, (i % COLUMNS * width + 4, i // COLUMNS * (SIDE + CAPTION + 8) + 4))
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
