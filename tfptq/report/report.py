"""The report of one quantization: values that turn into a table, JSON, CSV, an HTML page and data for other viewers."""

import os
from collections.abc import Callable
from pathlib import Path

from rich.console import Console, ConsoleOptions, RenderResult

from tfptq.base import json_values
from tfptq.base.arguments import one_of
from tfptq.base.files import write_atomically
from tfptq.report.data_files import MODEL_EXPLORER_VALUES, render_csv, render_model_explorer
from tfptq.report.page import render_fragment, render_page
from tfptq.report.table import render_report, report_renderable, text_for_stdout
from tfptq.report.values import ReportValues


class Report(ReportValues):
    """Everything worth knowing about one quantization, with its forms as text, JSON, CSV and HTML."""

    def __str__(self) -> str:
        return text_for_stdout(self)

    def __repr__(self) -> str:
        return f"<Report of {self.summary}>"

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield report_renderable(self, options.max_width)

    def _repr_html_(self) -> str:
        return render_fragment(self)

    def render(self, width: int | None = None) -> str:
        """The report as a text table; ``width`` breaks lines and leaves columns out that do not fit."""
        return render_report(self, width)

    def to_html(self) -> str:
        """The report as one HTML page that needs no other file and no network."""
        return render_page(self)

    def to_csv(self) -> str:
        """The table of layers, a row for each, a column for each number or name that the report has of it."""
        return render_csv(self)

    def to_json(self, indent: int | None = 2) -> str:
        """Strict JSON text; ``from_json`` gives an equal report back. Infinity becomes the text ``"inf"``."""
        return json_values.to_json(self, indent)

    def save(self, path: str | os.PathLike) -> Path:
        """Write the report in the form that the suffix asks for: ``.html``, ``.json``, ``.csv`` or ``.txt``.

        Raises:
            ValueError: another suffix.
            OSError: the path cannot be written.
        """
        form = FORMS.get(Path(path).suffix)
        if form is None:
            raise ValueError(f"the report file {str(path)!r} must end in {', '.join(FORMS)}")
        return write_atomically(path, form(self).rstrip("\n") + "\n")

    def save_model_explorer(self, path: str | os.PathLike, value: str = "output_snr_db") -> Path:
        """Write data for the nodes of the file in Model Explorer ("Add per-node data"), as a ``.json`` file.

        Args:
            path: of the file to write.
            value: what colours the nodes: ``"output_snr_db"``, ``"weight_snr_db"``, ``"bits"`` or ``"bytes_after"``.

        Raises:
            ValueError: another value, or no layer has it.
            OSError: the path cannot be written.
        """
        one_of("value", value, MODEL_EXPLORER_VALUES)
        return write_atomically(path, render_model_explorer(self, value))

    @classmethod
    def from_json(cls, text: str) -> "Report":
        """Read what ``to_json`` wrote; a ValueError if it is no report."""
        return json_values.from_json(cls, text, "a report")


#: Suffix of a file -> the text of a report in that form.
FORMS: dict[str, Callable[[Report], str]] = {
    ".html": Report.to_html,
    ".json": Report.to_json,
    ".csv": Report.to_csv,
    ".txt": Report.render,
}
