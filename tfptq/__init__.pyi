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
from tfptq.evaluation.evaluate import evaluate
from tfptq.evaluation.result import Evaluation
from tfptq.exploration.result import SearchResult
from tfptq.exploration.search import search
from tfptq.exploration.sensitivity import layer_sensitivity
from tfptq.export import export_simulation
from tfptq.graph.float_equality import FloatEqualityError
from tfptq.pipeline.result import QuantizationResult
from tfptq.quantization import quantize, quantize_keras_model
from tfptq.report import QuantizationWarning, Report
from tfptq.tflite.app_metadata import AppMetadata, with_app_metadata
from tfptq.tflite.flatbuffer import FormatError
from tfptq.tflite.inspect import inspect
from tfptq.tflite.layouts import LayoutError
from tfptq.tflite.lookup_tables import compress_for_micro
from tfptq.tflite.verify import VerificationError, verify
from tfptq.version import __version__

__all__ = [
    "PRESETS",
    "TARGETS",
    "AppMetadata",
    "Calibration",
    "CalibrationData",
    "DataError",
    "Evaluation",
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
    "QuantizationWarning",
    "Report",
    "Rounding",
    "SearchResult",
    "Target",
    "VerificationError",
    "__version__",
    "calibration_data",
    "compress_for_micro",
    "evaluate",
    "export_simulation",
    "inspect",
    "layer_sensitivity",
    "override",
    "quantize",
    "quantize_keras_model",
    "search",
    "verify",
    "with_app_metadata",
]
