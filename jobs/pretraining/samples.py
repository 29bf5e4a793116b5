"""Sample pictures of a pretext task on one sheet, for people."""

import io

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

SIDE, WIDTH, CAPTION = 160, 1000, 18  # pixels: a picture's height, a sheet's width, a caption's height


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
    columns = min(max(1, WIDTH // width), len(cells))
    rows = -(-len(cells) // columns)
    sheet = Image.new("RGB", (width * columns, rows * (SIDE + CAPTION + 8)), "white")
    for i, cell in enumerate(cells):
        sheet.paste(cell, (i % columns * width + 4, i // columns * (SIDE + CAPTION + 8) + 4))
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
