"""Makes the parts of the report's page that need more than text: headings with anchors, charts, scripts, pictures."""

import base64
import hashlib
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from jinja2.utils import htmlsafe_json_dumps
from markupsafe import Markup
from PIL import Image

from jobs.report.chart_parts import Spec
from jobs.report.chart_style import Mark
from jobs.study.folder import Study
from jobs.study.warning_log import warn
from ssl_core.evaluation.protocols.retrieval import EDGE, SIDE
from ssl_core.storage.cache import cached_arrays
from ssl_core.storage.files import read_bytes

GLOBALS = "window.vegaEmbed = vegaEmbed;"  # what the page's own script needs of the library


class Contents:
    """Makes the headings of a page and keeps them for its table of contents."""

    def __init__(self):
        self.entries: list[tuple[int, str, str]] = []  # level, anchor, title

    def __call__(self, title: str, level: int = 2) -> Markup:
        """Returns a heading with an anchor of its own, which is made of the title."""
        taken = {anchor for _, anchor, _ in self.entries}
        words = "".join(c if c.isalnum() and c.isascii() else " " for c in title.lower()).split()
        anchor = base = "-".join(words) or "section"
        number = 1
        while anchor in taken:
            number += 1
            anchor = f"{base}-{number}"
        self.entries.append((level, anchor, title))
        link = '<h{0} id="{1}">{2}<a class="anchor" href="#{1}" aria-label="Link to this section">#</a></h{0}>'
        return Markup(link).format(level, anchor, title)


def attempt(study: Study, what: str, make: Callable[..., Any], *args: Any) -> Any:
    """Returns `make(*args)`, or if that fails a line for the page that says so.

    By then all the work is done, and no picture may cost its report.
    """
    try:
        return make(*args)
    except Exception as error:
        why = " ".join(f"{type(error).__name__}: {error}".split())
        warn(study.root, f"the report lacks {what}: {why}")
        return Markup('<p class="caveat">The report lacks {}: {}</p>').format(what, why)


def chart_block(study: Study, name: str, make: Callable[..., Spec | None], *args: Any) -> Markup | None:
    """Returns the chart `make(*args)` for the page, a line that it could not be made, or None if there is nothing to
    show.
    """
    return attempt(study, f"the chart “{name}”", _chart_block, make, *args)


def _chart_block(make: Callable[..., Spec | None], *args: Any) -> Markup | None:
    spec = make(*args)
    if spec is None:
        return None
    strict = partial(json.dumps, allow_nan=False)  # JSON has no NaN
    block = '<div class="chart"><script type="application/json">{}</script></div>'
    return Markup(block).format(htmlsafe_json_dumps(spec, dumps=strict))


@dataclass(frozen=True)
class Script:
    """Is a script of the page, with what its Content-Security-Policy allows it by."""

    text: Markup

    @property
    def source(self) -> Markup:
        """Returns the script's hash as the policy has it."""
        return Markup(f"'sha256-{base64.b64encode(hashlib.sha256(self.text.encode()).digest()).decode()}'")


@cache
def chart_library() -> Script:
    """Returns Vega, Vega-Lite and Vega-Embed, as the package vl-convert-python holds them.

    To bundle them takes more than a second of a processor, which only the first report of a machine waits for.
    """
    key = f"vega-{version('vl-convert-python')}-{hashlib.sha256(GLOBALS.encode()).hexdigest()[:8]}"
    try:
        text = cached_arrays(key, _bundle, ("script",))["script"].tobytes()
    except OSError:  # the cache has no room, say
        text = _bundle()["script"].tobytes()
    return Script(Markup(text.decode()))


def _bundle() -> dict[str, np.ndarray]:
    import vl_convert  # most commands write no report

    return {"script": np.frombuffer(vl_convert.javascript_bundle(GLOBALS).encode(), np.uint8)}


def package_file(name: str) -> Markup:
    """Returns the text of a file that lies beside the page's template."""
    return Markup(files("jobs.report").joinpath(name).read_text("utf-8"))


@dataclass(frozen=True)
class ContactSheet:
    """Is the picture of an encoder's nearest neighbors, a query in each row, see `retrieval.contact_sheet`."""

    mark: Mark
    url: str
    width: int  # pixels
    queries: int
    tile: int = SIDE + 2 * EDGE  # pixels of a row

    @classmethod
    def read(cls, mark: Mark, path: Path) -> "ContactSheet":
        """Reads a sheet. Raises OSError if it is no picture."""
        with Image.open(io.BytesIO(read_bytes(path))) as image:
            width, height = image.size
        return cls(mark, embed_image(path), width, max(1, height // cls.tile))

    def position(self, query: int) -> str:
        """Returns where a query's row is, as CSS has the vertical position of a background."""
        return f"{100 * query / max(1, self.queries - 1):.3f}%"


def embed_image(path: Path) -> str:
    """Returns a PNG as a URL that holds it."""
    return "data:image/png;base64," + base64.b64encode(read_bytes(path)).decode()
