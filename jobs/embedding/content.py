"""Holds what is written into a file: all parts with what is known of their images, one part in memory at a time."""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from jobs.embedding.parts import features_file
from jobs.embedding.record import EmbeddingRecord, PartRecord
from jobs.embedding.rows import RowReader, Rows, select_images
from ssl_core.data.dataset import Source
from ssl_core.errors import UserError
from ssl_core.storage.files import read_bytes


@dataclass(frozen=True)
class Content:
    """Holds the parts of a file.

    Attributes:
        record: What the features are of.
        source: The dataset.
        folder: The folder or URL of the parts.
        parts: The records of all parts, in order.
    """

    record: EmbeddingRecord
    source: Source
    folder: Path
    parts: list[PartRecord]

    @property
    def rows(self) -> int:
        """Returns how many images have features."""
        return sum(part.images for part in self.parts)

    @property
    def skipped(self) -> list[str]:
        """Returns the names of the images that cannot be decoded."""
        return [self._reader.name(i) for part in self.parts for i in part.skipped]

    @cached_property
    def ids(self) -> np.ndarray:
        """Returns the numbers of the images that have features, [n] int64."""
        ids = select_images(self.source, self.record.split)
        return ids[~np.isin(ids, [i for part in self.parts for i in part.skipped])]

    @property
    def labels(self) -> np.ndarray:
        """Returns the labels of the images that have features, [n] int64 or [n, classes] bool."""
        return self._reader.labels[self.ids]

    @cached_property
    def _reader(self) -> RowReader:
        return RowReader(self.source)

    def read(self) -> Iterator[tuple[Rows, np.ndarray]]:
        """Reads one part after the other.

        Yields:
            The rows of each part that has any, and their features, [n, d] float32.

        Raises:
            UserError: If a part is damaged, or not there.
        """
        start = 0
        for number, part in enumerate(self.parts):
            path = features_file(self.folder, number)
            try:
                features = np.load(io.BytesIO(read_bytes(path)), allow_pickle=False)
            except FileNotFoundError as error:
                raise UserError(
                    f"{path} is not there: on several machines --output is a path that all of them share, or a URL"
                ) from error
            except (ValueError, EOFError) as error:
                raise UserError(f"{path} is damaged: remove {self.folder}") from error
            if features.shape != (part.images, self.record.width):
                raise UserError(f"{path} is damaged: remove {self.folder}")
            if part.images:
                yield self._reader.read(self.ids[start : start + part.images]), features
            start += part.images
