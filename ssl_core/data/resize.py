"""Images in memory at another side."""

import numpy as np


def resized(images: np.ndarray, size: int | None) -> np.ndarray:
    """Resizes square images by Pillow's bicubic filter, which averages what it shrinks.

    Args:
        images: [n, side, side, 3] uint8.
        size: The new side in pixels; None, or the present side, changes nothing.

    Returns:
        [n, size, size, 3] uint8; `images` itself if nothing changes.
    """
    if size is None or images.shape[1] == size:
        return images
    from PIL import Image

    bicubic = Image.Resampling.BICUBIC
    return np.stack([np.asarray(Image.fromarray(image).resize((size, size), bicubic)) for image in images])
