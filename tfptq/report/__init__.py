"""What a quantization did, layer by layer: values, a text table, JSON, an HTML page."""

from tfptq.report.report import Report
from tfptq.report.values import BlockPicture, FloatOperator, LayerReport, SkippedLayer

__all__ = ["BlockPicture", "FloatOperator", "LayerReport", "Report", "SkippedLayer"]
