"""Checks of the kernels' arguments, with one clear line for each mistake."""

from collections.abc import Iterable

import torch

PIXEL_DTYPES = (torch.uint8, torch.float32, torch.bfloat16, torch.float16)
INTEGER_DTYPES = (torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
LARGEST = 1e38  # of a mean or std: float32 ends soon after


def check_tensor(name: str, value: object) -> None:
    """Checks that an argument is a tensor.

    Args:
        name: Of the argument, for the message.
        value: Its value.

    Raises:
        ValueError: If it is none.
    """
    if not isinstance(value, torch.Tensor):
        raise ValueError(f"{name}: got {value!r}; expected a torch.Tensor")


def check_images(images: torch.Tensor) -> None:
    """Checks images that a kernel reads.

    Args:
        images: The argument of that name.

    Raises:
        ValueError: If it is not uint8 [b, h, w, c] with h and w >= 1, c 1 or 3, and h*w*c < 2^31.
    """
    check_tensor("images", images)
    if images.dtype != torch.uint8 or images.dim() != 4 or images.shape[3] not in (1, 3):
        raise ValueError(
            f"images: got {images.dtype} {list(images.shape)}; expected torch.uint8 [b, h, w, c], c 1 or 3"
        )
    if not 0 < images.shape[1] * images.shape[2] * images.shape[3] < 2**31:
        raise ValueError(f"images: got {list(images.shape)}; expected h, w >= 1 and h*w*c < 2^31")


def check_bytes(name: str, value: torch.Tensor) -> None:
    """Checks that an argument is uint8 [n].

    Args:
        name: Of the argument, for the message.
        value: Its value.

    Raises:
        ValueError: If it is not.
    """
    check_tensor(name, value)
    if value.dtype != torch.uint8 or value.dim() != 1:
        raise ValueError(f"{name}: got {value.dtype} {list(value.shape)}; expected torch.uint8 [n]")


def check_size(name: str, size: int, images: torch.Tensor) -> None:
    """Checks the side of a window.

    Args:
        name: Of the argument, for the message.
        size: Its value, in pixels.
        images: [b, h, w, c].

    Raises:
        ValueError: If it is not in 1..min(h, w).
    """
    limit = min(images.shape[1], images.shape[2])
    if not isinstance(size, int) or not 1 <= size <= limit:
        raise ValueError(f"{name}: got {size!r}; expected an int in 1..{limit}, the images' shorter side")


def check_integers(name: str, labels: torch.Tensor, shape: tuple[int, ...], device: torch.device) -> None:
    """Checks an argument that holds integers (or bools).

    Args:
        name: Of the argument, for the message.
        labels: Its value.
        shape: The shape that it must have.
        device: The device that it must be on.

    Raises:
        ValueError: If it is no tensor, or one of another dtype, shape or device.
    """
    check_tensor(name, labels)
    if labels.dtype not in INTEGER_DTYPES or tuple(labels.shape) != tuple(shape) or labels.device != device:
        raise ValueError(
            f"{name}: got {labels.dtype} {list(labels.shape)} on {labels.device};"
            f" expected an integer tensor {list(shape)} on {device}"
        )


def check_windows(images: torch.Tensor, size: int, flips: torch.Tensor, offsets: torch.Tensor) -> None:
    """Checks the arguments of kernels that cut one window from each image.

    Args:
        images: uint8 [b, h, w, c].
        size: The side of the windows, in pixels.
        flips: Integers [b].
        offsets: Integers [b, 2].

    Raises:
        ValueError: If one has another type, shape, device or range.
    """
    check_images(images)
    check_size("size", size, images)
    check_integers("flips", flips, (images.shape[0],), images.device)
    check_integers("offsets", offsets, (images.shape[0], 2), images.device)


def check_output(
    channels: int | None, mean: Iterable[float], std: Iterable[float], dtype: torch.dtype
) -> tuple[list[float], list[float]]:
    """Checks how the pixels are to be normalized.

    Args:
        channels: Of the images; None where mean says how many, 1 or 3.
        mean: One number per channel, in pixel units (0..255).
        std: One number per channel, in pixel units.
        dtype: Of the output.

    Returns:
        mean and std as lists of floats.

    Raises:
        ValueError: If the dtype is not supported, if there is not one mean and one std per channel, or if a mean, a std
            or its inverse is not finite as float32, or a std not > 0.
    """
    if dtype not in PIXEL_DTYPES:
        raise ValueError(f"dtype: got {dtype}; expected one of {', '.join(map(str, PIXEL_DTYPES))}")
    means, stds = _numbers(mean), _numbers(std)
    if len(means) not in ((channels,) if channels else (1, 3)) or not all(abs(value) <= LARGEST for value in means):
        raise ValueError(f"mean: got {mean!r}; expected {channels or '1 or 3'} numbers, one per channel")
    if len(stds) != len(means) or not all(1 / LARGEST <= value <= LARGEST for value in stds):
        raise ValueError(f"std: got {std!r}; expected {len(means)} numbers > 0, one per channel")
    return means, stds


def _numbers(values: Iterable[float]) -> list[float]:
    try:
        return [float(value) for value in values]
    except (TypeError, ValueError):
        return []
