"""Names datasets for people where several are compared."""

from collections import Counter
from collections.abc import Mapping

Images = tuple[str, int]  # which images an encoder is evaluated on: their digest, or place, and their side in pixels


def unique_dataset_names(names: Mapping[Images, str]) -> dict[Images, str]:
    """Returns each dataset's name, with the images' side in pixels where several have the same.

    Where that is the same too, as of two folders of one name, it has the beginning of the digest.
    """
    repeated = _repeated(names)
    sized = {images: f"{name}, {images[1]} px" if name in repeated else name for images, name in names.items()}
    repeated = _repeated(sized)
    return {images: f"{name}, {images[0][:6]}" if name in repeated else name for images, name in sized.items()}


def _repeated(names: Mapping[Images, str]) -> set[str]:
    return {name for name, count in Counter(names.values()).items() if count > 1}
