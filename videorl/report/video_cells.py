"""A video inside of a self-contained page, with what it is and its score; and its prompt."""

from __future__ import annotations

import base64
from html import escape
from pathlib import Path

from videorl.report.charts import fixed

TINY_PX = 128
"""Videos up to this wide are enlarged pixel by pixel, without blur."""

LONGEST = 2000
"""Characters of a text that a page shows."""


def clipped(text: str, longest: int = LONGEST) -> str:
    """Return a text, or the beginning of one that is too long to show, with its length."""
    if len(text) <= longest:
        return text
    return f"{text[:longest]}… ({len(text)} characters)"


def video_cell(name: str, path: Path | None, score: float | None) -> str:
    """Return a video that plays by itself, embedded; None says that there is no file."""
    caption = f"<small><span>{escape(name)}</span><span>{fixed(score)}</span></small>"
    if path is None:
        return f'<div><div class="missing">no video file</div>{caption}</div>'
    encoded = base64.b64encode(path.read_bytes()).decode()
    tiny = ' class="tiny"' if 0 < width_px(path) <= TINY_PX else ""
    return (
        f'<div><video{tiny} src="data:video/mp4;base64,{encoded}" autoplay loop muted playsinline '
        f'title="click to pause"></video>{caption}</div>'
    )


def width_px(path: Path) -> int:
    """Return the width of a video in pixels, 0 if it cannot be opened."""
    import av

    try:
        with av.open(str(path)) as container:
            return container.streams.video[0].width
    except (av.FFmpegError, IndexError):
        return 0
