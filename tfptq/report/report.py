"""The report of one quantization: values that turn into a table, JSON or an HTML page."""

from tfptq.base import json_values
from tfptq.report.page import render_page
from tfptq.report.table import render_report
from tfptq.report.values import ReportValues


class Report(ReportValues):
    """Everything worth knowing about one quantization, with its forms as text, JSON and HTML."""

    def render(self) -> str:
        """The report as a text table, a summary first."""
        return render_report(self)

    def __str__(self) -> str:
        return self.render()

    def to_html(self) -> str:
        """The report as one HTML page that needs no other file and no network."""
        return render_page(self)

    def to_json(self, indent: int | None = 2) -> str:
        """Strict JSON text; ``from_json`` gives an equal report back. Infinity becomes the text ``"inf"``."""
        return json_values.to_json(self, indent)

    @classmethod
    def from_json(cls, text: str) -> "Report":
        """Read what ``to_json`` wrote; a ValueError if it is no report."""
        return json_values.from_json(cls, text, "a report")
