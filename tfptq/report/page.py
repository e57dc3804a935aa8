"""The report as one HTML page: summary, layers, what needs attention, pictures of blocks. No script, no other file."""

from collections.abc import Iterable, Sequence
from html import escape

import numpy as np

from tfptq.base.text import printable
from tfptq.core.decibels import decibels
from tfptq.report.picture import data_url, heat_map, png
from tfptq.report.table import format_bytes, format_decibels, format_difference
from tfptq.report.values import BlockPicture, LayerReport, ReportValues

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1c1e26; max-width: 76rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin-bottom: 0; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
p.note { color: #5a5f6e; margin: .2rem 0 .8rem; max-width: 50rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; }
th, td { padding: .25rem .7rem; border-bottom: 1px solid #dfe2ea; text-align: right; white-space: nowrap; }
th { border-bottom: 2px solid #9aa0b0; } th.text, td.text { text-align: left; } tfoot td { font-weight: 600; }
figure { margin: 1.4rem 0; } figcaption { font-weight: 600; margin-bottom: .4rem; }
.pair { display: flex; flex-wrap: wrap; gap: 2rem; } .pair div { font-size: .85rem; color: #5a5f6e; }
.pair img { display: block; image-rendering: pixelated; border: 1px solid #9aa0b0; margin-top: .2rem; }
"""
#: Longest side of a picture on the page, and largest side of one block in it.
_PICTURE_SIDE, _BLOCK_SIDE = 384, 32


def render_page(report: ReportValues) -> str:
    """HTML text of a report."""
    sections = [
        _summary(report),
        _layers(report.layers),
        _reordering(report.layers),
        *map(_picture, report.pictures),
        _listing("Left in float", (f"{item.name} ({item.type}): {item.reason}" for item in report.skipped)),
        _listing(
            "On integers, but not fitted by their config",
            (f"{item.name} ({item.type}): {item.reason}" for item in report.unfitted),
        ),
        _listing(
            "Float operators in the file",
            (f"{item.operator} → {item.tensor}: {item.reason}" for item in report.float_operators),
        ),
        _listing("Warnings", report.warnings),
    ]
    body = "\n".join(section for section in sections if section)
    title = _safe(f"{report.model_name}, quantized with {report.preset}")
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{title}</title>\n'
        f"<style>{_STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n{body}\n</body>\n</html>\n"
    )


def _safe(text: str) -> str:
    """Text without tags, and without what would change the way that it reads."""
    return escape(printable(text))


def _summary(report: ReportValues) -> str:
    rows = [
        ("Layers quantized", str(len(report.layers))),
        (
            "File",
            f"{format_bytes(report.file_bytes)}, {report.change_of_size} than {format_bytes(report.float_file_bytes)}",
        ),
        ("Calibration", f"{report.samples} samples, seed {report.seed}"),
    ]
    rows += [
        (f"Output {name!r} against float", f"{format_decibels(ratio)} dB") for name, ratio in report.outputs.items()
    ]
    rows += [
        (f"Float graph after {name!r}", format_difference(value)) for name, value in report.float_differences.items()
    ]
    if report.seconds:
        steps = ", ".join(f"{name} {seconds:.1f}" for name, seconds in report.seconds.items())
        rows.append(("Time", f"{sum(report.seconds.values()):.1f} s: {steps}"))
    return _table((), rows, text_columns={0, 1})


def _layers(layers: Sequence[LayerReport]) -> str:
    if not layers:
        return ""
    head = (
        *("Layer", "Type", "Granularity", "Bits", "Rounding", "Layout"),
        *("Scales", "Float", "Quantized", "Weights dB", "Output dB"),
    )
    rows = [
        (
            *(layer.name, layer.type, layer.granularity, str(layer.bits), layer.rounding, layer.layout),
            str(layer.scales),
            *(format_bytes(layer.bytes_before), format_bytes(layer.bytes_after)),
            *(format_decibels(layer.weight_snr_db), format_decibels(layer.output_snr_db)),
        )
        for layer in layers
    ]
    sums = [sum(getattr(layer, name) for layer in layers) for name in ("scales", "bytes_before", "bytes_after")]
    total = ("Total", *5 * ("",), str(sums[0]), format_bytes(sums[1]), format_bytes(sums[2]), "", "")
    return "<h2>Layers</h2>\n" + _table(head, rows, {0, 1, 2, 4, 5}, total)


def _reordering(layers: Sequence[LayerReport]) -> str:
    found = [
        (layer.name, layer.noise_before, layer.noise_after)
        for layer in layers
        if layer.noise_before is not None and layer.noise_after is not None
    ]
    if not found:
        return ""
    rows = [_noise_row(*item) for item in found]
    total = _noise_row("Sum", sum(before for _, before, _ in found), sum(after for *_, after in found))
    note = (
        "Expected noise of rounding each block, relative to the layer's weights. Their sum is what reordering lowers."
    )
    head = ("Layer", "Noise before", "Noise after", "Gain dB")
    return f'<h2>Reordered channels</h2>\n<p class="note">{note}</p>\n' + _table(head, rows, {0}, total)


def _noise_row(name: str, before: float, after: float) -> tuple[str, str, str, str]:
    gain = f"{decibels(before, after):+.2f}" if before > 0.0 and after > 0.0 else "-"
    return name, f"{before:.3g}", f"{after:.3g}", gain


def _picture(picture: BlockPicture) -> str:
    before, after = (np.array(values, np.float64) for values in (picture.before, picture.after))
    high = max(before.max(), after.max())
    side = min(_BLOCK_SIDE, max(1, _PICTURE_SIDE // max(before.shape)))
    size = f'width="{side * before.shape[1]}" height="{side * before.shape[0]}"'
    images = "".join(
        f'<div>{title}<img {size} alt="block maxima {title}" src="{data_url(png(heat_map(values, 0.0, high)))}"></div>'
        for title, values in (("before", before), ("after", after))
    )
    caption = f"{_safe(picture.layer)}: largest weight in each block, 0 (dark) to {high:.3g} (light)"
    note = "Rows are blocks of output channels, columns are blocks of input channels."
    return (
        f'<figure><figcaption>{caption}</figcaption><p class="note">{note}</p><div class="pair">{images}</div></figure>'
    )


def _listing(title: str, lines: Iterable[str]) -> str:
    items = "".join(f"<li>{_safe(line)}</li>" for line in lines)
    return f"<h2>{title}</h2>\n<ul>{items}</ul>" if items else ""


def _table(
    head: Sequence[str], rows: Sequence[Sequence[str]], text_columns: set[int], total: Sequence[str] = ()
) -> str:
    def row(cells: Sequence[str], tag: str) -> str:
        kinds = ("text" if column in text_columns else "number" for column in range(len(cells)))
        marked = (f'<{tag} class="{kind}">{_safe(cell)}</{tag}>' for kind, cell in zip(kinds, cells, strict=True))
        return f"<tr>{''.join(marked)}</tr>\n"

    parts = [f"<thead>\n{row(head, 'th')}</thead>\n" if head else ""]
    parts.append(f"<tbody>\n{''.join(row(cells, 'td') for cells in rows)}</tbody>\n")
    parts.append(f"<tfoot>\n{row(total, 'td')}</tfoot>\n" if total else "")
    return f'<div class="scroll"><table>\n{"".join(parts)}</table></div>'
