"""Color jitter on a GPU: what each of the four adjustments does to pixels."""

import triton.language as tl

from kernels.triton_jit import jit


@jit
def luminance(r, g, b):
    """Returns ITU-R 601 luma, with torchvision's weights."""
    return r * 0.2989 + g * 0.587 + b * 0.114


@jit
def blend(v, other, factor):
    """Returns v * factor + other * (1 - factor), cut off at 0 and 255."""
    return tl.minimum(tl.maximum(v * factor + other * (1.0 - factor), 0.0), 255.0)


@jit
def hue_channel(slope, top, chroma):
    """Returns one channel of a color: top - chroma * slope, the slope cut off at 0 and 1.

    With k = angle + 5, 3 or 1 for red, green and blue, less 6 where that is 6 or more, the slope is min(k, 4 - k). Two
    straight lines say the same of each channel's k, to the bit: where they round otherwise, they are cut off.
    """
    return top - chroma * tl.minimum(tl.maximum(slope, 0.0), 1.0)


@jit
def adjust(r, g, b, operation, factors, mean):
    """Returns the pixels after one operation.

    Args:
        r: Red, float32 in 0..255.
        g: Green.
        b: Blue.
        operation: 0 brightness, 1 contrast, 2 saturation, 3 hue.
        factors: Pointer to the image's four factors, float32.
        mean: The mean gray level that contrast blends with.
    """
    if operation == 0:
        factor = tl.maximum(tl.load(factors), 0.0)  # then no product is below 0
        r = tl.minimum(r * factor, 255.0)
        g = tl.minimum(g * factor, 255.0)
        b = tl.minimum(b * factor, 255.0)
    elif operation == 1:
        factor = tl.load(factors + 1)
        r = blend(r, mean, factor)
        g = blend(g, mean, factor)
        b = blend(b, mean, factor)
    elif operation == 2:
        factor = tl.load(factors + 2)
        gray = luminance(r, g, b)
        r = blend(r, gray, factor)
        g = blend(g, gray, factor)
        b = blend(b, gray, factor)
    elif tl.load(factors + 3) != 0.0:
        shift = tl.minimum(tl.maximum(tl.load(factors + 3), -0.5), 0.5) * 6.0
        top = tl.maximum(tl.maximum(r, g), b)
        chroma = top - tl.minimum(tl.minimum(r, g), b)
        difference = tl.where(top == r, g - b, tl.where(top == g, b - r, r - g))
        angle = tl.div_rn(difference, tl.where(chroma > 0.0, chroma, 1.0))
        angle = angle + tl.where(top == r, 0.0, tl.where(top == g, 2.0, 4.0)) + shift
        angle = tl.where(angle < 0.0, angle + 6.0, angle)
        angle = tl.where(angle >= 6.0, angle - 6.0, angle)
        r = hue_channel(2.0 - tl.abs(angle + 5.0 - 8.0), top, chroma)
        g = hue_channel(tl.abs(angle + 3.0 - 5.0) - 1.0, top, chroma)
        b = hue_channel(tl.abs(angle + 1.0 - 5.0) - 1.0, top, chroma)
    return r, g, b
