"""Labels and normalization in a file, for apps: TFLite Metadata, which MediaPipe Tasks and Android Studio read.

The description is a FlatBuffers message (``app_metadata.fbs``) in the metadata entry ``TFLITE_METADATA``; the labels
are a text file in a ZIP archive behind the model, which interpreters ignore. The package ``tflite-support``, which used
to write both, ended in 2023; MediaPipe goes on reading them.
"""

import io
import math
import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfptq.tflite.flatbuffer_writer import write_message
from tfptq.tflite.interface import InterfaceRow, read_interface
from tfptq.tflite.metadata import load_bytes
from tfptq.tflite.model import TFLiteModel
from tfptq.tflite.model_reader import read_model
from tfptq.tflite.schema import own_schema

APP_METADATA_KEY = "TFLITE_METADATA"
LABELS_FILE = "labels.txt"
#: Version of the schema that has all fields that are written.
_PARSER_VERSION = "1.0.0"
_COLOR_SPACES = {1: 2, 3: 1}  # channels -> GRAYSCALE, RGB


@dataclass(frozen=True)
class AppMetadata:
    """What an app has to know of a classifier, or of another network of pictures.

    Attributes:
        labels: one for each class, in the order of the output.
        mean: what is subtracted from pixels of 0 to 255, for each channel or one for all.
        std: what they are then divided by; ``mean=(127.5,), std=(127.5,)`` makes -1 to 1. Empty: no normalization.
        name: of the model.
        description: of the model.
    """

    labels: Sequence[str] = ()
    mean: Sequence[float] = ()
    std: Sequence[float] = ()
    name: str = ""
    description: str = ""

    def __post_init__(self):
        for name in ("labels", "mean", "std"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        bad = [label for label in self.labels if not isinstance(label, str) or len(label.splitlines()) != 1]
        if bad:
            raise ValueError(f"label {bad[0]!r}: labels are texts of one line each, and none is empty")
        if len(self.mean) != len(self.std) or len(self.mean) not in (0, 1, 3):
            raise ValueError(f"mean={self.mean} and std={self.std}: give 1 or 3 numbers for both, or none")
        if not all(map(math.isfinite, (*self.mean, *self.std))) or min(self.std, default=1.0) <= 0:
            raise ValueError(f"mean={self.mean} and std={self.std}: numbers are finite, and those of std above 0")


def with_app_metadata(file: bytes | str | os.PathLike, metadata: AppMetadata) -> bytes:
    """A ``.tflite`` file with labels and normalization for apps. What it computes, and its names, stay.

    Args:
        file: bytes or path of a ``.tflite`` file.
        metadata: what to add, in place of what may be there already.

    Raises:
        ValueError: it does not fit the inputs and outputs of the file.
        FormatError: the file is damaged.
        OSError: the path cannot be read.

    Examples:
        >>> metadata = tfptq.AppMetadata(["cat", "dog"], mean=[127.5], std=[127.5])
        >>> pathlib.Path("net.tflite").write_bytes(tfptq.with_app_metadata(result.tflite, metadata))
    """
    data = load_bytes(file)
    rows = read_interface(read_model(data))
    message = _message(rows, metadata)
    model = TFLiteModel(data)
    kept = [entry for entry in model.root.metadata or [] if entry.name not in (APP_METADATA_KEY, b"TFLITE_METADATA")]
    model.root.buffers.append(schema.BufferT(data=np.frombuffer(message, np.uint8)))
    entry = schema.MetadataT(name=APP_METADATA_KEY, buffer=len(model.root.buffers) - 1)
    model.root.metadata = [*kept, entry]
    model.remove_unused()
    return _with_labels(model.to_bytes(), metadata.labels)


def check_app_metadata(metadata: AppMetadata, input_shapes: Sequence[tuple], output_shapes: Sequence[tuple]) -> None:
    """Refuse metadata that do not fit inputs and outputs; shapes have None for open sizes.

    Raises:
        ValueError: naming what does not fit.
    """
    if metadata.labels and (len(output_shapes) != 1 or output_shapes[0][-1] != len(metadata.labels)):
        raise ValueError(
            f"{len(metadata.labels)} labels do not fit the outputs {[list(shape) for shape in output_shapes]}: labels "
            "are for a model with one output, one for each of its classes"
        )
    channels = None if len(input_shapes) != 1 or len(input_shapes[0]) != 4 else input_shapes[0][-1]
    if metadata.mean and (channels not in _COLOR_SPACES or len(metadata.mean) not in (1, channels)):
        raise ValueError(
            f"mean={metadata.mean} does not fit the inputs {[list(shape) for shape in input_shapes]}: a normalization "
            "is for a model with one input of pictures, of 1 or 3 channels"
        )


def _message(rows: Sequence[InterfaceRow], metadata: AppMetadata) -> bytes:
    inputs, outputs = ([row for row in rows if row.end == end] for end in ("input", "output"))
    check_app_metadata(metadata, [row.shape for row in inputs], [row.shape for row in outputs])
    graph = {
        "input_tensor_metadata": [_input(row, metadata) for row in inputs],
        "output_tensor_metadata": [_output(row, metadata) for row in outputs],
    }
    root = {
        "name": metadata.name or None,
        "description": metadata.description or None,
        "subgraph_metadata": [graph],
        "min_parser_version": _PARSER_VERSION,
    }
    return write_message(root, own_schema("app_metadata.fbs"))


def _input(row: InterfaceRow, metadata: AppMetadata) -> dict[str, Any]:
    if not metadata.mean:
        return {"name": row.name, "content": {"content_properties": ("FeatureProperties", {})}}
    space = _COLOR_SPACES[row.shape[-1] or 0]
    options = {"mean": metadata.mean, "std": metadata.std}
    return {
        "name": row.name,
        "content": {"content_properties": ("ImageProperties", {"color_space": space})},
        "process_units": [{"options": ("NormalizationOptions", options)}],
    }


def _output(row: InterfaceRow, metadata: AppMetadata) -> dict[str, Any]:
    found: dict[str, Any] = {"name": row.name, "content": {"content_properties": ("FeatureProperties", {})}}
    if metadata.labels:
        found["associated_files"] = [{"name": LABELS_FILE, "type": 2}]
    return found


def _with_labels(content: bytes, labels: Sequence[str]) -> bytes:
    """The file with an archive behind it."""
    if not labels:
        return content
    stream = io.BytesIO(content)
    with zipfile.ZipFile(stream, "a") as archive:  # stored, not compressed, as readers map it
        archive.writestr(zipfile.ZipInfo(LABELS_FILE), "\n".join(labels) + "\n")
    return stream.getvalue()
