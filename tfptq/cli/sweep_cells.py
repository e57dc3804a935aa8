"""Cells of a granularity study: which weights share a scale, at how many bits, reordered or not; and what comes out.

A cell is one point of the grid that ``sweep`` walks. Its record holds what the quantization itself knows;
how good the outputs are is for the caller to measure. Signal to noise is in dB, ``10 log10(sum f^2 / sum (f - q)^2)``.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfptq.base.files import write_atomically
from tfptq.base.json_object import read_object
from tfptq.config import PerBlock, PerChannel, PerTensor, QuantizationConfig
from tfptq.core.decibels import decibels

if TYPE_CHECKING:  # it loads TensorFlow, which the flags need not wait for
    from tfptq.pipeline.result import QuantizationResult


@dataclass(frozen=True)
class Cell:
    """One way to share scales."""

    granularity: PerTensor | PerChannel | PerBlock
    bits: int = 4
    scaler: str = "float"
    reorder: bool = False

    @property
    def shape(self) -> str:
        """Short name of the granularity: ``tensor``, ``channel``, ``8x16`` or ``4 input blocks``."""
        if not isinstance(self.granularity, PerBlock):
            return "tensor" if isinstance(self.granularity, PerTensor) else "channel"
        if self.granularity.input_blocks is not None:
            return f"{self.granularity.input_blocks} input blocks"
        return f"{self.granularity.output_channels}x{self.granularity.input_channels}"

    @property
    def name(self) -> str:
        """Name of the cell, which tells it from all others."""
        kind = f" {self.scaler}" if isinstance(self.granularity, PerBlock) else ""
        return f"W{self.bits} {self.shape}{kind}{' reordered' if self.reorder else ''}"

    def config(self, base: QuantizationConfig) -> QuantizationConfig:
        """A config with this cell's way of sharing scales."""
        return base.replace(
            granularity=self.granularity, weight_bits=self.bits, scaler=self.scaler, reorder=self.reorder
        )


def parse_granularity(text: str) -> PerTensor | PerChannel | PerBlock:
    """Read ``tensor``, ``channel``, ``MxN`` (output x input channels) or ``HIB`` (H input blocks, such as ``4ib``).

    Raises:
        ValueError: the text is none of these.
    """
    if text in ("tensor", "channel"):
        return PerTensor() if text == "tensor" else PerChannel()
    height, cross, width = text.partition("x")
    if text.endswith("ib") and text[:-2].isdigit():
        return PerBlock(input_blocks=int(text[:-2]))
    if cross and height.isdigit() and width.isdigit():
        return PerBlock(int(height), int(width))
    raise ValueError(
        f"{text!r} is no granularity; write tensor, channel, 8x16 for blocks of 8 output and 16 input channels, or 4ib "
        "for 4 input blocks"
    )


def grid(granularities: list[str], bits: list[int], scalers: list[str], reorder: list[bool]) -> list[Cell]:
    """All cells of a grid, without those that repeat others.

    Layers without blocks have one kind of scale and nothing to reorder. ``granularities`` are texts for
    ``parse_granularity``.

    Raises:
        ValueError: a text that is no granularity, or an axis of the grid is empty.
    """
    for name, values in (("granularities", granularities), ("bits", bits), ("scalers", scalers)):
        if not values:
            raise ValueError(f"the grid is empty: there are no {name}")
    cells: dict[Cell, None] = {}
    for granularity in map(parse_granularity, granularities):
        blocks = isinstance(granularity, PerBlock)
        for width in bits:
            for scaler in scalers if blocks else ["float"]:
                for move in reorder if blocks else [False]:
                    cells[Cell(granularity, width, scaler, move)] = None
    return list(cells)


def describe(result: "QuantizationResult", cell: Cell) -> dict[str, Any]:
    """What a quantization knows of itself, as plain values.

    ``weight_snr_db`` and ``layer_output_snr_db`` are those of the layers that have the cell's bits (the first and the
    last may be pinned to more), by their mean ratio of noise to signal; ``scales`` counts those of all layers.
    """
    layers = [layer for layer in result.report.layers if layer.bits == cell.bits] or list(result.report.layers)
    outputs = [layer.output_snr_db for layer in layers if layer.output_snr_db is not None]
    return {
        "granularity": cell.shape,
        "bits": cell.bits,
        "scaler": cell.scaler,
        "reorder": cell.reorder,
        "scales": sum(layer.scales for layer in result.report.layers),
        "bytes": len(result.tflite),
        "weight_snr_db": mean_snr_db([layer.weight_snr_db for layer in layers]),
        "layer_output_snr_db": mean_snr_db(outputs),
        "seconds": sum(result.report.seconds.values()),
    }


class Records:
    """Finished cells in a JSON file; each is written at once, so that a killed study goes on where it was.

    Args:
        path: the file; read when it is there.
        settings: what the numbers depend on besides the cell.

    Raises:
        ValueError: the file holds another study, or no study.
    """

    def __init__(self, path: Path, settings: dict[str, Any]):
        self._path, self._settings = path, settings
        self.cells: dict[str, dict[str, Any]] = {}
        if not path.exists():
            return
        other, self.cells = _read_records(path)
        changed = sorted(key for key in {*settings, *other} if settings.get(key) != other.get(key))
        if changed:
            raise ValueError(
                f"{path} holds a study with another {', '.join(changed)}; choose another folder or delete it"
            )

    def add(self, name: str, record: dict[str, Any]) -> None:
        """Keep a finished cell."""
        self.cells[name] = record
        content = {"settings": self._settings, "cells": self.cells}
        write_atomically(self._path, json.dumps(content, indent=1) + "\n")


#: Numbers of a record, those that may be missing, and texts.
_NUMBERS = ("bits", "scales", "bytes", "seconds")
_OPTIONAL_NUMBERS = ("weight_snr_db", "layer_output_snr_db", "snr_db", "agreement", "accuracy")
_TEXTS = ("granularity", "scaler")


def _read_records(path: Path) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Settings and finished cells of a study; a ValueError that names the file if it is none."""
    try:
        if not path.is_file():
            raise ValueError("it is no file")
        stored = read_object(path.read_bytes().decode("utf-8"))
        settings, cells = stored["settings"], stored["cells"]
        if not isinstance(settings, dict) or not isinstance(cells, dict) or not all(map(_is_record, cells.values())):
            raise ValueError("its cells are no results")
        return settings, cells
    except (KeyError, ValueError) as error:
        raise ValueError(
            f"{path} is no study of granularities ({error}); choose another folder or delete it"
        ) from error


def _is_record(record: Any) -> bool:
    def is_number(name: str) -> bool:
        return isinstance(record.get(name), int | float)

    return (
        isinstance(record, dict)
        and all(map(is_number, _NUMBERS))
        and all(name in record and (record[name] is None or is_number(name)) for name in _OPTIONAL_NUMBERS)
        and all(isinstance(record.get(name), str) for name in _TEXTS)
        and isinstance(record.get("reorder"), bool)
    )


def mean_snr_db(values: list[float]) -> float | None:
    """Signal to noise in dB of the mean ratio of noise to signal; None when there is no noise, or no value.

    A layer without noise counts as one, where the mean of decibels would have to leave it out, and one that is nearly
    exact does not make up for another.
    """
    noise = sum(10.0 ** (-value / 10.0) for value in values)
    return decibels(len(values), noise) if noise else None
