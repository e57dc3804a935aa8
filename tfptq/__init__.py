"""Post-training quantization of Keras 3 models into int8 and int4 TFLite files.

This is the table of contents. Each name is imported from its module when it is first used, so that
``import tfptq`` stays cheap and reading a file does not load TensorFlow.
"""

from importlib import import_module

from tfptq.base.quiet import quiet_import
from tfptq.version import __version__

#: Module -> the public names that it provides.
_CONTENTS = {
    "tfptq.config": (
        "PRESETS",
        "TARGETS",
        "Calibration",
        "LayerOverride",
        "MixedPrecision",
        "PerBlock",
        "PerChannel",
        "PerTensor",
        "QuantizationConfig",
        "Rounding",
        "Target",
        "override",
    ),
    "tfptq.data.calibration": ("CalibrationData", "calibration_data"),
    "tfptq.data.errors": ("DataError",),
    "tfptq.graph.float_equality": ("FloatEqualityError",),
    "tfptq.evaluation.evaluate": ("evaluate",),
    "tfptq.evaluation.result": ("Evaluation",),
    "tfptq.exploration.result": ("SearchResult",),
    "tfptq.exploration.search": ("search",),
    "tfptq.exploration.sensitivity": ("layer_sensitivity",),
    "tfptq.export": ("export_simulation",),
    "tfptq.quantization": ("quantize", "quantize_keras_model"),
    "tfptq.report": ("QuantizationWarning", "Report"),
    "tfptq.pipeline.result": ("QuantizationResult",),
    "tfptq.tflite.app_metadata": ("AppMetadata", "with_app_metadata"),
    "tfptq.tflite.flatbuffer": ("FormatError",),
    "tfptq.tflite.inspect": ("inspect",),
    "tfptq.tflite.layouts": ("LayoutError",),
    "tfptq.tflite.lookup_tables": ("compress_for_micro",),
    "tfptq.tflite.verify": ("VerificationError", "verify"),
}
_MODULE_OF = {name: module for module, names in _CONTENTS.items() for name in names}

__all__ = ["__version__", *sorted(_MODULE_OF)]


def __getattr__(name: str):
    if name not in _MODULE_OF:
        from tfptq.base.arguments import did_you_mean

        raise AttributeError(f"module 'tfptq' has no attribute {name!r}{did_you_mean(name, __all__)}")
    with quiet_import():
        value = getattr(import_module(_MODULE_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
