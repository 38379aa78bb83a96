"""The report of a run: a single HTML file that loads nothing from elsewhere."""

from videorl.report.page import write_report

__all__ = ["write_report"]
