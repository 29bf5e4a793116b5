"""Defines what every JSON record on disk has in common: a version, and reading that checks each field."""

from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Self

from ssl_core.errors import UserError
from ssl_core.storage.files import read_json, write_json


class OtherVersion(UserError):
    """Is raised for a record that is not damaged, but of a version that this program does not read."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """Is a frozen dataclass that is kept as one JSON file, together with the version of its format.

    Attributes:
        VERSION: To be raised when fields change, so that no program misreads a record of another version.
    """

    VERSION: ClassVar[int] = 1
    __pydantic_config__: ClassVar[dict] = {"extra": "forbid"}

    @classmethod
    def read(cls, path: Path) -> Self:
        """Reads the record at `path`.

        Raises:
            FileNotFoundError: If there is none.
            OtherVersion: If it is of another version.
            UserError: If it is damaged.
        """
        return cls.parse(read_json(path), str(path))

    @classmethod
    def parse(cls, value: object, place: str) -> Self:
        """Makes the record of a JSON value.

        Args:
            value: What the JSON file holds.
            place: Where it lies, which messages name.

        Raises:
            OtherVersion: If it is of another version.
            UserError: If a field is missing, unknown or of another type.
        """
        version = value.get("version") if isinstance(value, dict) else None
        if not isinstance(value, dict) or not isinstance(version, int):
            raise UserError(f"{place} is damaged, or of a Tilespin that wrote no versions: remove it")
        if version != cls.VERSION:
            other = "a newer" if version > cls.VERSION else "an older"
            raise OtherVersion(f"{place} is of version {version}, this Tilespin reads {cls.VERSION}: use {other} one")
        from pydantic import ValidationError  # takes a tenth of a second, which help need not wait for

        try:
            return _validator(cls).validate_python({name: of for name, of in value.items() if name != "version"})
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise UserError(f"{place} is damaged: {where}: {first['msg']}") from error

    def write(self, path: Path) -> None:
        """Writes the record beside `path` and renames it to `path`, or puts it into an object store."""
        write_json(path, {**asdict(self), "version": self.VERSION})


@cache
def _validator(kind: type) -> Any:
    """Returns pydantic's validator of a dataclass, which takes milliseconds to build."""
    from pydantic import TypeAdapter

    return TypeAdapter(kind)
