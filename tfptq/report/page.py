"""The report as one HTML page without other files or network, and as a fragment for notebooks.

The templates lay out; what they draw is computed in ``tfptq.report.charts``.
"""

from functools import cache
from typing import Any

import jinja2
import numpy as np

from tfptq.base.text import printable
from tfptq.core.decibels import decibels
from tfptq.report.charts import (
    bytes_chart,
    columns_chart,
    histogram_chart,
    ratios_chart,
    trial_points,
)
from tfptq.report.heat_map import data_url, heat_map, png
from tfptq.report.units import format_bytes, format_decibels, format_difference, ratio_kind
from tfptq.report.values import BlockPicture, ReportValues

#: Longest side of a picture on the page, and largest side of one block in it.
_PICTURE_SIDE, _BLOCK_SIDE = 320, 32


def render_page(report: ReportValues) -> str:
    """HTML text of a report."""
    return _environment().get_template("page.html.jinja").render(_context(report))


def render_fragment(report: ReportValues) -> str:
    """The head and the layers of a report, to stand in another page."""
    return _environment().get_template("fragment.html.jinja").render(_context(report))


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("tfptq.report"),
        autoescape=True,
        finalize=_printable,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(bytes=format_bytes, decibels=format_decibels, difference=format_difference)
    environment.globals.update(
        ratio_kind=ratio_kind, columns_chart=columns_chart, histogram_chart=histogram_chart, gain=_gain
    )
    return environment


def _printable(value: Any) -> Any:
    """What a template shows, with control characters of names escaped."""
    return printable(value) if type(value) is str else value


def _context(report: ReportValues) -> dict[str, Any]:
    return {
        "report": report,
        "title": f"{report.model_name}, quantized with {report.preset}",
        "ratios": ratios_chart(report.layers),
        "sizes": bytes_chart(report.layers),
        "blocks": [_block_images(picture) for picture in report.pictures],
        "reordered": [layer for layer in report.layers if layer.noise_before is not None],
        "points": trial_points(report.trials),
    }


def _gain(before: float, after: float) -> str:
    return f"{decibels(before, after):+.2f}" if before > 0.0 and after > 0.0 else "-"


def _block_images(picture: BlockPicture) -> dict[str, Any]:
    before, after = (np.array(values, np.float64) for values in (picture.before, picture.after))
    high = max(before.max(), after.max())
    side = min(_BLOCK_SIDE, max(1, _PICTURE_SIDE // max(before.shape)))
    urls = {
        title: data_url(png(heat_map(values, 0.0, high))) for title, values in (("before", before), ("after", after))
    }
    return {"layer": picture.layer, "high": high, "width": side * before.shape[1], "urls": urls}
