"""A comparison as one HTML page that needs no other file."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from videorl.measures.results import Report
from videorl.measures.tables import Cells, all_tables
from videorl.report.style import CSS


def page(report: Report) -> str:
    """Return the page: every table with intervals, the notes and the settings."""
    names = " · ".join(row.label for row in report.rows)
    blocks = [f"<h2>{escape(title)}</h2>{_table(cells)}" for title, cells in all_tables(report)]
    notes = "".join(f'<p class="note">{escape(note)}</p>' for note in report.notes)
    settings = [(name, str(value)) for name, value in report.settings.items()]
    blocks.append(f"<h2>Settings</h2>{_table([('setting', 'value'), *settings])}")
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(names)}</title><style>{CSS}</style></head>"
        f"<body><h1>{escape(names)}</h1>{notes}{''.join(blocks)}</body></html>\n"
    )


def _table(cells: Cells | Sequence[tuple[str, ...]]) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in cells[0])
    rows = "".join(
        f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in cells[1:]
    )
    return f'<div class="scroll"><table><tr>{head}</tr>{rows}</table></div>'
