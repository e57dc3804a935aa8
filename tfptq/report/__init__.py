"""What a quantization did, layer by layer: values, a text table, JSON."""

from tfptq.report.report import FloatOperator, LayerReport, Report, SkippedLayer

__all__ = ["FloatOperator", "LayerReport", "Report", "SkippedLayer"]
