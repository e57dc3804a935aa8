"""What a quantization did, layer by layer: values, what is wrong with them, a text table, JSON, an HTML page."""

from tfptq.report.report import Report
from tfptq.report.values import (
    BlockPicture,
    Distribution,
    Finding,
    FloatOperator,
    LayerPicture,
    LayerReport,
    QuantizationWarning,
    SkippedLayer,
    Trial,
)

__all__ = [
    "BlockPicture",
    "Distribution",
    "Finding",
    "FloatOperator",
    "LayerPicture",
    "LayerReport",
    "QuantizationWarning",
    "Report",
    "SkippedLayer",
    "Trial",
]
