"""Draws docs/images/demo.svg: what `tilespin study demo` says in a terminal. Run as `python docs/record_demo.py`.

It runs the demo in a new folder and needs some minutes. `python docs/record_demo.py FILE.cast` draws a recording that
is there already, in the format of asciinema, version 2.
"""

import codecs
import fcntl
import io
import json
import os
import pty
import re
import struct
import sys
import tempfile
import termios
import time
from pathlib import Path

from rich.console import Console
from rich.text import Text

IMAGE = Path(__file__).parent / "images" / "demo.svg"
COLUMNS, ROWS = 100, 40
SPEED = 30  # times as fast as it was
SHOWN = 3  # of the lines about evaluations; another says how many more there were
COMMAND = ["tilespin", "study", "demo"]

Event = tuple[float, str, str]  # seconds, "o" for output, text


def record(command: list[str], folder: str) -> list[Event]:
    """Runs a command in a terminal of its own, in `folder`, and returns what it wrote and when."""
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(folder)
        os.environ.update(TERM="xterm-256color", COLORTERM="truecolor", COLUMNS=str(COLUMNS), LINES=str(ROWS))
        os.execvp(command[0], command)
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    events, start, decode = [], time.monotonic(), codecs.getincrementaldecoder("utf-8")("replace").decode
    while True:
        try:
            data = os.read(terminal, 65536)
        except OSError:  # how Linux says that the other side was closed
            break
        events.append((time.monotonic() - start, "o", decode(data)))
    if os.waitpid(child, 0)[1]:
        sys.exit(f"{' '.join(command)} failed:\n{''.join(text for _, _, text in events)[-2000:]}")
    return events


def final_lines(events: list[Event]) -> list[tuple[float, str]]:
    """Returns the lines that stay, with their colors and when they were written; bars that were erased are not there.

    It knows what rich sends: line ends, a line erased, the cursor moved up, colors.
    """
    lines, row, rest = [(0.0, "")], 0, ""
    for seconds, _, text in events:
        text = rest + text
        rest = match[0] if (match := re.search(r"\x1b[^A-Za-z]*$", text)) else ""  # the rest comes with the next event
        for token in re.findall(r"\x1b\[\??[\d;]*[A-Za-z]|\n|[^\x1b\r\n]+", text.removesuffix(rest) if rest else text):
            if token == "\n":
                row += 1
                lines += [(seconds, "")] * (row == len(lines))
            elif token == "\x1b[2K":
                lines[row] = seconds, ""
            elif up := re.fullmatch(r"\x1b\[(\d+)A", token):
                row -= int(up[1])
            elif not token.startswith("\x1b[?"):
                lines[row] = seconds, lines[row][1] + token
    return lines


def abridge(lines: list[tuple[float, str]]) -> list[tuple[float, str]]:
    """Shortens what repeats: lines about evaluations after the first, and the folder that a path lies in."""
    evaluated = [line for line in lines if "evaluated" in line[1]]
    more = {line: None for line in evaluated[SHOWN:]}
    if more:
        more[evaluated[-1]] = f"[{len(more)} more lines like these]"
    kept = [(seconds, more.get((seconds, text), text)) for seconds, text in lines]
    kept = [(seconds, re.sub(r"/\S*/(runs/demo/)", r"\1", text)) for seconds, text in kept if text is not None]
    while kept and not kept[-1][1].strip():
        kept.pop()
    return kept


def draw(command: list[str], lines: list[tuple[float, str]]) -> str:
    """Returns an SVG in which the lines appear one after another; where nothing moves, all of them are there."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), color_system="truecolor")
    delays = []
    for seconds, line in [(0.0, f"\x1b[1m$ {' '.join(command)}\x1b[0m"), *lines]:
        text = Text.from_ansi(line)
        delays += [seconds / SPEED] * max(1, len(text.wrap(console, COLUMNS)))
        console.print(text, highlight=False)
    svg = console.export_svg(title="tilespin study demo", unique_id="demo")
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)  # nothing is fetched from elsewhere
    motion = "@keyframes appear { from { opacity: 0 } }\n    .demo-matrix text { animation: appear 0.1s backwards }\n"
    still = "    @media (prefers-reduced-motion: reduce) { .demo-matrix text { animation: none } }\n"
    svg = svg.replace("</style>", f"{motion}{still}    </style>", 1)

    def delay(match: re.Match) -> str:
        return f'{match[0]} style="animation-delay: {delays[int(match[1])]:.1f}s"'

    return re.sub(r'clip-path="url\(#demo-line-(\d+)\)"(?=>)', delay, svg)


def main(recording: Path | None) -> None:
    """Records the demo, unless a recording is given, and writes the picture."""
    if recording:
        rows = [json.loads(line) for line in recording.read_text().splitlines()]
        events = [row for row in rows if isinstance(row, list)]  # the first line is the header
    else:
        with tempfile.TemporaryDirectory() as folder:
            events = record(COMMAND, folder)
    IMAGE.write_text(draw(COMMAND, abridge(final_lines(events))))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
