"""The one place that states the version of tfptq."""

__version__ = "0.1.0"
