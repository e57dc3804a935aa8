"""What layouts have to know of the kernels of a float file."""

from tfptq.config import COMPUTES, QuantizationConfig
from tfptq.float_file.kernel import Kernel, KernelUse
from tfptq.tflite.layouts import LayoutRequest
from tfptq.tflite.model import TFLiteModel


def layout_requests(config: QuantizationConfig, model: TFLiteModel, kernel: Kernel) -> list[LayoutRequest]:
    """What a layout has to know of each use of a kernel; of uses that are alike, once."""
    return list(dict.fromkeys(layout_request(config, model, use) for use in kernel.uses))


def layout_request(config: QuantizationConfig, model: TFLiteModel, use: KernelUse) -> LayoutRequest:
    """What a layout has to know of one use of a kernel in a float file."""
    view_shape = use.view.view_shape
    return LayoutRequest(
        model.operator_name(model.operators[use.operator]),
        view_shape,
        config.granularity.block_shape(*view_shape[:2]),
        config.scaler,
        config.weight_bits,
        config.device_activation_bits,
        is_shift_scaler=config.is_shift_scaler,
        window=use.window,
        input_sizes=tuple(model.sizes(use.input)),
        computes=COMPUTES[config.activations],
    )
