"""The canonical float model: flat, float32, one kernel per layer, BatchNormalization folded.

Everything after this step (wrappers, converter, channel groups) sees this model only. It computes what the user's
model computes in inference, up to float32 rounding; ``check_float_equal`` measures that.
"""

from collections.abc import Collection

import keras

from tfptq.graph.convertible import make_convertible
from tfptq.graph.fold_batch_norm import fold_batch_norm
from tfptq.graph.input_scaling import merge_input_normalizations
from tfptq.graph.read_graph import read_graph
from tfptq.graph.rebuild import build_model
from tfptq.graph.simplify import (
    add_missing_biases,
    batch_norm_as_depthwise,
    forget_states,
    remove_identities,
    remove_recurrent_dropout,
    repeat_pixels_by_resizing,
    split_separable_convolutions,
    unwrap_time_distributed,
)
from tfptq.graph.validate import check_backend, check_model, check_names, check_weights


def canonicalise(model: keras.Model, kept: Collection[str] = ()) -> keras.Model:
    """Make the canonical float model.

    Nested models are inlined and layers without effect in inference removed. ``TimeDistributed(Dense)`` is made
    ``Dense``, up-sampling by repetition ``Resizing``, separable convolutions are split, and operations that TFLite does
    not have are made of others. BatchNormalization (and constant multiples and offsets of channels) is folded into the
    convolution or dense layer before or after it; one of feature maps that cannot be folded becomes a depthwise
    convolution of one tap, others stay. Convolutions and dense layers without a bias get one of zeros. LSTM layers
    start from zeros at each call.

    Args:
        model: built Keras 3 Sequential or Functional model; it is not changed.
        kept: input normalizations to make a layer of their own (``input_normalizations_to_keep``).

    Returns:
        A new functional model with copied float32 weights and the same inputs and outputs. Layers keep their names, but
        for two nested layers of one name, and the halves of a separable convolution (``<name>_depthwise``,
        ``<name>_pointwise``).

    Raises:
        RuntimeError: Keras does not run on TensorFlow.
        TypeError: not a Keras 3 model.
        ValueError: the model is not built, subclassed or already quantized, has names that TensorFlow cannot export,
            NaN or infinite weights, or a layer that cannot be copied.
    """
    check_backend()
    check_model(model)
    graph = read_graph(model)
    check_names(graph)
    check_weights(graph)
    graph, normalizations = merge_input_normalizations(remove_identities(graph), kept)
    graph = unwrap_time_distributed(forget_states(remove_recurrent_dropout(graph)))
    graph = split_separable_convolutions(graph)
    graph = repeat_pixels_by_resizing(make_convertible(graph))
    graph = batch_norm_as_depthwise(fold_batch_norm(graph, normalizations))
    graph = add_missing_biases(graph)
    return build_model(graph)
