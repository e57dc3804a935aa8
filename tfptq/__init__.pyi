"""What type checkers see of the table of contents in ``__init__.py``; a test keeps the two equal."""

from tfptq.config import (
    PRESETS,
    TARGETS,
    Calibration,
    LayerOverride,
    MixedPrecision,
    PerBlock,
    PerChannel,
    PerTensor,
    QuantizationConfig,
    Rounding,
    Target,
    override,
)
from tfptq.data.calibration import CalibrationData, calibration_data
from tfptq.data.errors import DataError
from tfptq.export import export_simulation
from tfptq.graph.float_equality import FloatEqualityError
from tfptq.pipeline.result import QuantizationResult
from tfptq.quantize import quantize_keras_model
from tfptq.report import Report
from tfptq.tflite.flatbuffer import FormatError
from tfptq.tflite.inspect import inspect
from tfptq.tflite.layouts import LayoutError
from tfptq.tflite.lookup_tables import compress_for_micro
from tfptq.tflite.verify import VerificationError, verify
from tfptq.version import __version__

__all__ = [
    "PRESETS",
    "TARGETS",
    "Calibration",
    "CalibrationData",
    "DataError",
    "FloatEqualityError",
    "FormatError",
    "LayerOverride",
    "LayoutError",
    "MixedPrecision",
    "PerBlock",
    "PerChannel",
    "PerTensor",
    "QuantizationConfig",
    "QuantizationResult",
    "Report",
    "Rounding",
    "Target",
    "VerificationError",
    "__version__",
    "calibration_data",
    "compress_for_micro",
    "export_simulation",
    "inspect",
    "override",
    "quantize_keras_model",
    "verify",
]
