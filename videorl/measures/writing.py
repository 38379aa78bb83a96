"""The files of a comparison: JSON, Markdown, LaTeX, a page, and a table of every clip."""

from __future__ import annotations

from pathlib import Path

from videorl.files import write_json, write_text
from videorl.measures.page import page
from videorl.measures.results import Report
from videorl.measures.tables import format_latex, format_markdown, to_json


def write_report(out: Path, report: Report) -> None:
    """Write measured.json, .md, .tex, .html and .parquet."""
    write_json(out / "measured.json", to_json(report))
    write_text(out / "measured.md", format_markdown(report))
    write_text(out / "measured.tex", format_latex(report))
    write_text(out / "measured.html", page(report))
    write_clips(out / "measured.parquet", report)


def write_clips(path: Path, report: Report) -> None:
    """Write a row per clip: folder, video, prompt, and every number, null where there is none."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = list(dict.fromkeys(name for clip in report.clips for name in clip.numbers))
    columns: dict[str, pa.Array] = {
        name: pa.array([getattr(clip, name) for clip in report.clips], pa.string())
        for name in ("folder", "video", "prompt")
    }
    for name in names:
        columns[name] = pa.array([clip.numbers.get(name) for clip in report.clips], pa.float64())
    partial = path.with_name(f".{path.name}.partial")
    pq.write_table(pa.table(columns), partial)
    partial.replace(path)
