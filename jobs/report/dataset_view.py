"""Shows the description of a dataset in the terminal."""

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ssl_core.data.description_record import DatasetRecord, ExactCopies, NearCopies, SplitDescription

MOST_CLASSES = 20  # lines of the table of classes
NAMED = 5  # unreadable images that are named


def print_description(record: DatasetRecord, console: Console) -> None:
    """Prints all but the first line of a description: classes, formats and sizes, unreadable images, and copies."""
    if record.classes:
        console.print(_class_table(record))
        print_line(console, _balance(record))
    if record.splits["train"].pixels:
        console.print(_pixel_table(record))
    for part, split in record.splits.items():
        for line in _split_lines(part, split, record):
            print_line(console, line)
    for line in (*_exact_lines(record.exact, record), *_near_lines(record.near, record)):
        print_line(console, line)


def print_line(console: Console, line: str) -> None:
    """Prints a sentence as it is, without markup."""
    console.print(line, markup=False, highlight=False, soft_wrap=True)


def _class_table(record: DatasetRecord) -> Table:
    view = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    view.add_column("class", overflow="fold")
    for part in record.splits:
        view.add_column(part, justify="right")
    first = next(iter(record.splits.values())).per_class
    names = sorted(first, key=lambda name: (-first[name], name))
    kept = names
    if len(names) > MOST_CLASSES:
        kept = names[: MOST_CLASSES // 2] + names[1 - MOST_CLASSES // 2 :]
    for place, name in enumerate(kept):
        if len(kept) < len(names) and place == MOST_CLASSES // 2:
            view.add_row(f"… {len(names) - len(kept):,} more …")
        view.add_row(escape(name), *(f"{split.per_class[name]:,}" for split in record.splits.values()))
    without = [split.images - split.labeled for split in record.splits.values()]
    if any(without):
        view.add_row("without a label", *(f"{count:,}" for count in without), style="italic")
    return view


def _pixel_table(record: DatasetRecord) -> Table:
    """Returns the share of the masks' pixels that each class has, the most frequent first."""
    view = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    view.add_column("class, % of pixels", overflow="fold")
    for part in record.splits:
        view.add_column(part, justify="right")
    totals = [max(1, sum(split.pixels.values())) for split in record.splits.values()]
    first = next(iter(record.splits.values())).pixels
    names = sorted(first, key=lambda name: (-first[name], name))
    for name in names[:MOST_CLASSES]:
        shares = (100 * split.pixels[name] / total for split, total in zip(record.splits.values(), totals))
        view.add_row(escape(name), *(f"{share:.2f}" for share in shares))
    if len(names) > MOST_CLASSES:
        view.add_row(f"… {len(names) - MOST_CLASSES:,} more …")
    void = [100 * split.void / (split.void + total) for split, total in zip(record.splits.values(), totals)]
    if any(void):
        view.add_row("of no class", *(f"{share:.2f}" for share in void), style="italic")
    return view


def _balance(record: DatasetRecord) -> str:
    counts = next(iter(record.splits.values())).per_class
    names = sorted(counts, key=lambda name: counts[name])
    least, most = names[0], names[-1]
    several = sum(counts.values()) / max(1, record.splits["train"].labeled)
    many = f"; {several:.3g} labels an image" if record.multilabel else ""
    if not counts[least]:
        empty = sum(not count for count in counts.values())
        return f"classes: {empty:,} of {len(counts):,} without a training image, such as {least}{many}"
    if counts[least] == counts[most]:
        return f"classes: {counts[least]:,} training images in each{many}"
    return (
        f"classes: {counts[least]:,} ({least}) to {counts[most]:,} ({most}) training images, "
        f"{counts[most] / counts[least]:.3g} times as many{many}"
    )


def _split_lines(part: str, split: SplitDescription, record: DatasetRecord) -> list[str]:
    of = f" of {split.images:,}" if split.looked_at < split.images else ""
    what = "; ".join((_bytes(split.bytes), _counted(split.formats), _counted(split.modes)))
    lines = [f"{part}: {split.looked_at:,}{of} images looked at, {what}"]
    if split.sizes:
        sizes = (split.sizes.smallest, split.sizes.largest, split.sizes.median)
        smallest, largest, median = (f"{width:,} x {height:,}" for width, height in sizes)
        line = f"{part}: {smallest} to {largest} pixels, median {median}"
        if smallest == largest:
            line = f"{part}: {smallest} pixels"
        if split.sizes.smaller_than_size:
            line += f"; {split.sizes.smaller_than_size:,} with a side below {record.size} would be enlarged"
        lines.append(line)
    how = "all were tried" if split.decoded == split.looked_at else f"all headers were read, {split.decoded:,} tried"
    lines.append(f"{part}: {len(split.unreadable):,} of {split.looked_at:,} images cannot be decoded ({how})")
    for one in split.unreadable[:NAMED]:
        lines.append(f"  {one.reason}" if one.name in one.reason else f"  {one.name}: {one.reason}")
    if len(split.unreadable) > NAMED:
        lines.append(f"  and {len(split.unreadable) - NAMED:,} more, which --json names")
    return lines


def _exact_lines(exact: ExactCopies, record: DatasetRecord) -> list[str]:
    lines = []
    for part, count in (("train", exact.train_repeated), ("test", exact.test_repeated)):
        if part in record.splits:
            relabeled = f"; labels differ among {exact.train_relabeled:,} groups of these" if part == "train" else ""
            lines.append(
                f"copies, byte for byte, within {part}: {count:,} of {record.splits[part].looked_at:,} images repeat "
                f"an earlier one{relabeled if exact.train_relabeled else ''}"
            )
    if "test" in record.splits:
        found = exact.test_in_train
        line = f"copies of training images, byte for byte: {found:,} of {record.splits['test'].looked_at:,} test images"
        if exact.test_relabeled:
            line += f", {exact.test_relabeled:,} of them with another label there"
        lines.append(line)
        lines += _examples(exact.examples, found)
    return lines


def _near_lines(near: NearCopies | None, record: DatasetRecord) -> list[str]:
    if near is None:
        return ["near copies were not looked for"] if "test" in record.splits else []
    line = (
        f"near copies of training images: {near.test_found:,} of {near.test_compared:,} test images, in {near.pairs:,} "
        f"pairs; compared with {near.train_compared:,} of {record.splits['train'].images:,} training images: at most "
        f"{near.most_bits} of {near.of_bits} bits of a perceptual hash differ, and colors correlate by "
        f"{near.least_correlation} or more"
    )
    if near.without_contrast:
        line += f"; {near.without_contrast:,} images are of one color and were not compared"
    return [line, *_examples(near.examples, near.test_found)]


def _examples(pairs: tuple[tuple[str, str], ...], found: int) -> list[str]:
    lines = [f"  {test} of {train}" for test, train in pairs]
    return lines + ([f"  and {found - len(pairs):,} more"] if found > len(pairs) else [])


def _counted(counts: dict[str, int]) -> str:
    most = sorted(counts.items(), key=lambda one: -one[1])
    return " and ".join(f"{count:,} {name}" for name, count in most) or "no image that can be read"


def _bytes(count: int) -> str:
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if count >= size:
            return f"{count / size:,.3g} {unit}"
    return f"{count / 1e3:,.3g} kB"
