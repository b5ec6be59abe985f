"""Numbers and HTML: the small pieces that the report's sections are made of."""

from collections.abc import Sequence
from html import escape

import numpy as np


def number(value: float | None) -> str:
    """Four significant digits without an exponent where a reader expects none; a dash for no value."""
    if value is None or not np.isfinite(value):
        return "–"
    if value != 0 and not 1e-4 <= abs(value) < 1e7:
        return f"{value:.3e}"
    decimals = 3 - int(np.floor(np.log10(abs(value)))) if value else 0
    text = f"{value:,.{max(decimals, 0)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def duration(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    minutes, hours = int(seconds // 60), int(seconds // 3600)
    if hours:
        return f"{hours} h {minutes % 60} min"
    return f"{minutes} min {int(seconds % 60)} s" if minutes else f"{seconds:.1f} s"


def section(title: str, content: str) -> str:
    return f"<section>\n<h2>{title}</h2>\n{content}\n</section>" if content else ""


def bullets(sentences: Sequence[str]) -> str:
    items = "".join(f"<li>{escape(str(one))}</li>" for one in sentences)
    return f"<ul>{items}</ul>" if items else ""


def wrapped(text: str, color: str = "") -> str:
    """Text of a table that may be long, with a dot of its color: broken into lines, but not into letters."""
    wide = f"display:inline-block;min-width:{0.6 * min(len(text), 14):.1f}em;max-width:38vw"
    dot = f'<span class="dot" style="background:{color}"></span>' if color else ""
    return f'<span style="{wide};white-space:normal;overflow-wrap:anywhere">{dot}{escape(text)}</span>'


def table(head_cells: Sequence[str], rows: Sequence[Sequence[str]], n_text: int = 1) -> str:
    """A table that scrolls sideways on a small screen; cells are HTML, the first `n_text` text."""

    def line(cells: Sequence[str], tag: str) -> str:
        kinds = ["text" if index < n_text else "" for index in range(len(cells))]
        pairs = zip(cells, kinds, strict=True)
        return "<tr>" + "".join(f'<{tag} class="{kind}">{cell}</{tag}>' for cell, kind in pairs) + "</tr>"

    body = "\n".join(line(row, "td") for row in rows)
    top = f"<thead>{line(head_cells, 'th')}</thead>"
    return f'<div class="scroll"><table>{top}\n<tbody>{body}</tbody></table></div>'


def figure(identity: str, caption: str, shape: str = "") -> str:
    place = f'<div id="{identity}" class="plot {shape}"></div>'
    return f'<figure class="wide"><figcaption>{escape(caption)}</figcaption>{place}</figure>'
