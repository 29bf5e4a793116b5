"""Holds complete studies by name, each a file that `tilespin study` reads; its first line says what it is."""

from pathlib import Path


def preset_files() -> dict[str, Path]:
    """Returns the files of all presets by name."""
    return {path.stem: path for path in sorted(Path(__file__).parent.glob("*.toml"))}


def describe_presets() -> str:
    """Returns a sentence about each preset."""
    first_lines = {name: path.read_text("utf-8").splitlines()[0] for name, path in preset_files().items()}
    return " ".join(f"{name}: {line.removeprefix('# ')}" for name, line in first_lines.items())
