"""Has what all charts of a report share: encoders' names, colors and shapes, and the names of measures."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from jobs.report.comparison import EncoderRow, measure_name, measure_of, readable
from ssl_core.evaluation.protocol import is_accuracy, protocols

# Vega's tableau10, which is legible on white and on black, without its gray, which floors have, and its green
COLORS = ("#4c78a8", "#f58518", "#e45756", "#72b7b2", "#b279a2", "#eeca3b", "#9d755d", "#ff9da6")
GRAYS, GREEN = ("#8b929b", "#b0b6bd", "#6f7780", "#9da4ad"), "#54a24b"
STAR = "M0,-1L.23,-.31L.95,-.31L.36,.12L.59,.81L0,.38L-.59,.81L-.36,.12L-.95,-.31L-.23,-.31Z"
PALETTES = {"floor": GRAYS, "task": COLORS, "ceiling": (GREEN,), "external": COLORS}
SHAPES = {
    "floor": ("triangle-up", "triangle-down", "triangle-left", STAR),
    "task": ("circle", "triangle-right", "cross"),
    "ceiling": ("square", "wedge"),
    "external": ("diamond", "arrow"),
}
DASHES = {"floor": (3, 3), "task": (1, 0), "ceiling": (8, 3, 2, 3), "external": (1, 0)}
LONGEST = 40  # characters of a name in a chart
TITLES = {
    "linear": "Linear probe",
    "segmentation": "Linear segmentation",
    "knn": "kNN",
    "nonlinear": "Nonlinear probe",
    "attentive": "Attentive probe",
    "finetune": "Fine-tuning",
    "lowshot_finetune": "Fine-tuning with few labels",
}


@dataclass(frozen=True)
class Mark:
    """Says how charts show an encoder: the same on the whole page."""

    label: str
    color: str
    shape: str
    dash: tuple[int, ...]


@dataclass(frozen=True)
class Marks:
    """Holds the marks of all encoders of a report."""

    by_key: dict[tuple[str, str], Mark]

    @classmethod
    def of(cls, rows: Sequence[EncoderRow]) -> "Marks":
        """Gives every encoder a label of its own, a color and a shape, by its name and not by what it reached."""
        kinds = {_key(row): row.kind for row in rows}
        names, found, taken = Counter(name for name, _ in kinds), {}, Counter()
        labels: Counter[str] = Counter()
        for name, encoder in sorted(kinds):
            kind = kinds[name, encoder]
            palette, shapes = PALETTES[kind], SHAPES[kind]
            i, taken[palette] = taken[palette], taken[palette] + 1
            label = short_label(f"{name} ({encoder})" if names[name] > 1 else name)
            labels[label] += 1
            label = f"{label} ({labels[label]})" if labels[label] > 1 else label
            shape = shapes[(i // len(palette) if kind != "floor" else i) % len(shapes)]
            found[name, encoder] = Mark(label, palette[i % len(palette)], shape, DASHES[kind])
        return cls(found)

    def __getitem__(self, row: EncoderRow) -> Mark:
        """Returns the mark of a row."""
        return self.by_key[_key(row)]


def _key(row: EncoderRow) -> tuple[str, str]:
    return row.name, row.one.encoder


def short_label(name: str) -> str:
    """Returns a row's name as charts show it: a long one without its middle."""
    name, half = readable(name), LONGEST // 2
    return name if len(name) <= LONGEST else f"{name[:half]}…{name[-half:]}"


def percent_factor(protocol: str) -> int:
    """Returns what a protocol's main number is multiplied by to be shown: 100 for an accuracy, else 1."""
    return 100 if is_accuracy(protocol) else 1


def axis_label(protocol: str, rows: Sequence[EncoderRow]) -> str:
    """Returns the name of a protocol's main number, for an axis of a chart of these rows."""
    if is_accuracy(protocol):
        return f"{protocol} {measure_name(measure_of(rows, protocol))}, %"
    return f"{protocol}: {protocols()[protocol].headline}"


def protocol_title(protocol: str) -> str:
    """Returns a protocol's name as a heading."""
    return TITLES.get(protocol, protocol.replace("_", " ").capitalize())


def transfer_title(protocol: str) -> str:
    """Returns the heading of the figure that answers the report's question, by this protocol."""
    title = protocol_title(protocol)
    return f"Transfer: {title[0].lower()}{title[1:]}" if is_accuracy(protocol) else title
