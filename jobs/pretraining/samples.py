"""Draws sample pictures of a pretext task on one sheet, for people."""

import io

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

SIDE, WIDTH, CAPTION = 160, 1000, 18  # pixels: a picture's height, a sheet's width, a caption's height


def sample_sheet(pictures: list[tuple[Tensor, str]]) -> bytes:
    """Draws pictures side by side, enlarged without smoothing.

    Args:
        pictures: Each picture, [h, w, 3] uint8, with its caption.

    Returns:
        A PNG file.
    """
    font = ImageFont.load_default(13)
    tiles = []
    for pixels, caption in pictures:
        image = Image.fromarray(pixels.numpy())
        image = image.resize((round(image.width * SIDE / image.height), SIDE), Image.Resampling.NEAREST)
        width = max(image.width, round(font.getlength(caption)) + 4)
        tile = Image.new("RGB", (width, SIDE + CAPTION), "white")
        tile.paste(image, ((width - image.width) // 2, 0))
        ImageDraw.Draw(tile).text((2, SIDE + 1), caption, "black", font)
        tiles.append(tile)
    width = max(tile.width for tile in tiles) + 8
    columns = min(max(1, WIDTH // width), len(tiles))
    rows = -(-len(tiles) // columns)
    sheet = Image.new("RGB", (width * columns, rows * (SIDE + CAPTION + 8)), "white")
    for i, tile in enumerate(tiles):
        sheet.paste(tile, (i % columns * width + 4, i // columns * (SIDE + CAPTION + 8) + 4))
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
