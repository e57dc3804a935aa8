"""What a quantization did, layer by layer: values, a text table, JSON, an HTML page."""

from tfptq.report.report import BlockPicture, FloatOperator, LayerReport, Report, SkippedLayer

__all__ = ["BlockPicture", "FloatOperator", "LayerReport", "Report", "SkippedLayer"]
