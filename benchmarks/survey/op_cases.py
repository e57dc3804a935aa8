"""A small network for every function of ``keras.ops``: behind a kernel, and on the float input of the network."""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import keras
import numpy as np
from keras import ops

from benchmarks.survey.case import Case, MakeCase, batches, stem, with_samples

SHAPE = (8, 8, 4)
#: Functions that take no activations, or return none: constants, control flow, types, text of shapes.
LEFT_OUT = {
    *("arange", "array", "bartlett", "blackman", "cast", "convert_to_numpy", "convert_to_tensor", "dtype", "empty"),
    *("empty_like", "eye", "full", "full_like", "geomspace", "hamming", "hanning", "identity", "is_tensor", "kaiser"),
    *("linspace", "logspace", "ndim", "ones", "ones_like", "saturate_cast", "shape", "size", "tri", "zeros"),
    *("zeros_like", "associative_scan", "cond", "custom_gradient", "fori_loop", "jvp", "map", "scan", "switch"),
    *("vectorize", "vectorized_map", "while_loop", "stop_gradient", "ctc_decode", "ctc_loss", "unravel_index"),
    *("bitwise_and", "bitwise_invert", "bitwise_left_shift", "bitwise_not", "bitwise_or", "bitwise_right_shift"),
    *("bitwise_xor", "left_shift", "right_shift", "gcd", "lcm", "bincount", "multi_hot", "in_top_k", "view"),
    *("argpartition", "sparse_categorical_crossentropy", "view_as_complex", "view_as_real", "vsplit"),
}
_KERNEL = np.random.default_rng(3).normal(0.0, 0.3, (3, 3, 4, 4)).astype(np.float32)
_ROWS = np.random.default_rng(4).normal(0.0, 0.5, (4, 6)).astype(np.float32)
_BINS = [-1.0, -0.3, 0.0, 0.4, 1.0]


def _square(x: Any) -> Any:
    """Well-conditioned matrices ``[N, 8, 4, 4]``."""
    product = ops.einsum("nhwc,nhwd->nhcd", x, x)
    return product + 4.0 * ops.eye(4)


def _flat(x: Any) -> Any:
    return ops.reshape(x, (-1, 256))


#: Function -> how it is called with two tensors ``[N, 8, 8, 4]``, where it takes more than one or two of them.
CALLS: dict[str, Callable[[Any, Any], Any]] = {
    "adaptive_average_pool": lambda x, y: ops.adaptive_average_pool(x, (4, 4)),
    "adaptive_max_pool": lambda x, y: ops.adaptive_max_pool(x, (4, 4)),
    "append": lambda x, y: ops.append(x, y, axis=-1),
    "array_split": lambda x, y: ops.array_split(x, 3, axis=1),
    "average_pool": lambda x, y: ops.average_pool(x, 2),
    "batch_normalization": lambda x, y: ops.batch_normalization(x, np.ones(4, "f") / 4, np.ones(4, "f") / 2, -1),
    "broadcast_to": lambda x, y: ops.broadcast_to(x[:, :1], (1, 8, 8, 4)),
    "clip": lambda x, y: ops.clip(x, -0.7, 0.9),
    "concatenate": lambda x, y: ops.concatenate([x, y], -1),
    "conv": lambda x, y: ops.conv(x, _KERNEL),
    "conv_transpose": lambda x, y: ops.conv_transpose(x, _KERNEL, 2, "same", data_format="channels_last"),
    "cross": lambda x, y: ops.cross(x[..., :3], y[..., :3]),
    "cdist": lambda x, y: ops.cdist(x[:, 0], y[:, 1]),
    "corrcoef": lambda x, y: ops.corrcoef(x[0, 0]),
    "correlate": lambda x, y: ops.correlate(x[0, 0, :, 0], y[0, 0, :3, 0]),
    "depth_to_space": lambda x, y: ops.depth_to_space(x, 2),
    "depthwise_conv": lambda x, y: ops.depthwise_conv(x, _KERNEL[..., :1]),
    "diag": lambda x, y: ops.diag(x[0, 0, :, 0]),
    "diagonal": lambda x, y: ops.diagonal(x, axis1=1, axis2=2),
    "digitize": lambda x, y: ops.digitize(x, np.asarray(_BINS, "f")),
    "dot": lambda x, y: ops.dot(x, _ROWS),
    "dot_product_attention": lambda x, y: ops.dot_product_attention(x, y, x),
    "dsplit": lambda x, y: ops.dsplit(x, 2),
    "divide": lambda x, y: ops.divide(x, ops.relu(y) + 0.3),
    "divide_no_nan": lambda x, y: ops.divide_no_nan(x, ops.relu(y) + 0.3),
    "dstack": lambda x, y: ops.dstack([x, y]),
    "einsum": lambda x, y: ops.einsum("nhwc,nhvc->nhwv", x, y),
    "expand_dims": lambda x, y: ops.expand_dims(x, 1),
    "extract_sequences": lambda x, y: ops.extract_sequences(_flat(x), 16, 8),
    "fft": lambda x, y: ops.fft((_flat(x), _flat(y))),
    "fft2": lambda x, y: ops.fft2((x[..., 0], y[..., 0])),
    "floor_divide": lambda x, y: ops.floor_divide(x, ops.relu(y) + 0.3),
    "fmod": lambda x, y: ops.fmod(x, ops.relu(y) + 0.3),
    "fold": lambda x, y: ops.fold(ops.reshape(x, (-1, 16, 16)), (8, 8), 2, stride=2),
    "get_item": lambda x, y: x[:, 1:-1, ::2],
    "histogram": lambda x, y: ops.histogram(x[0, 0, :, 0], 8, (-1.0, 1.0)),
    "hsplit": lambda x, y: ops.hsplit(x, 2),
    "hstack": lambda x, y: ops.hstack([x, y]),
    "ifft2": lambda x, y: ops.ifft2((x[..., 0], y[..., 0])),
    "irfft": lambda x, y: ops.irfft((_flat(x), _flat(y))),
    "isin": lambda x, y: ops.isin(x, [0.0, 1.0]),
    "istft": lambda x, y: ops.istft(
        (ops.reshape(x, (-1, 8, 32))[..., :17], ops.reshape(y, (-1, 8, 32))[..., :17]), 32, 8, 32
    ),
    "kron": lambda x, y: ops.kron(x[:, :2, :2], np.ones((1, 2, 2, 1), "f")),
    "layer_normalization": lambda x, y: ops.layer_normalization(x, np.ones(4, "f"), np.zeros(4, "f")),
    "ldexp": lambda x, y: ops.ldexp(x, np.asarray(2)),
    "lstsq": lambda x, y: ops.lstsq(x[0, 0], y[0, 0]),
    "matmul": lambda x, y: ops.matmul(x, ops.transpose(y, (0, 1, 3, 2))),
    "max_pool": lambda x, y: ops.max_pool(x, 2),
    "meshgrid": lambda x, y: ops.meshgrid(x[0, 0, :, 0], y[0, 0, :, 0]),
    "mod": lambda x, y: ops.mod(x, ops.relu(y) + 0.3),
    "moments": lambda x, y: ops.moments(x, (1, 2)),
    "moveaxis": lambda x, y: ops.moveaxis(x, 1, 2),
    "nanpercentile": lambda x, y: ops.nanpercentile(x, 30, axis=-1),
    "nanquantile": lambda x, y: ops.nanquantile(x, 0.3, axis=-1),
    "norm": lambda x, y: ops.norm(x, axis=-1),
    "one_hot": lambda x, y: ops.one_hot(ops.argmax(x, -1), 4),
    "outer": lambda x, y: ops.outer(x[0, 0, 0], y[0, 0, 0]),
    "pad": lambda x, y: ops.pad(x, ((0, 0), (1, 1), (2, 1), (0, 0))),
    "percentile": lambda x, y: ops.percentile(x, 30, axis=-1),
    "polar": lambda x, y: ops.real(ops.polar(x, y)),
    "psnr": lambda x, y: ops.psnr(x, y, 4.0),
    "quantile": lambda x, y: ops.quantile(x, 0.3, axis=-1),
    "rearrange": lambda x, y: ops.rearrange(x, "n h w c -> n w h c"),
    "repeat": lambda x, y: ops.repeat(x, 2, axis=1),
    "reciprocal": lambda x, y: ops.reciprocal(ops.relu(x) + 0.3),
    "reshape": lambda x, y: ops.reshape(x, (-1, 16, 16)),
    "rfft": lambda x, y: ops.rfft(_flat(x)),
    "rms_normalization": lambda x, y: ops.rms_normalization(x, np.ones(4, "f")),
    "roll": lambda x, y: ops.roll(x, 2, axis=1),
    "rot90": lambda x, y: ops.rot90(x, axes=(1, 2)),
    "scatter": lambda x, y: ops.scatter(np.asarray([[1], [4], [6]]), x[0, 0, :3], (8, 4)),
    "scatter_update": lambda x, y: ops.scatter_update(x[0], np.asarray([[1, 2], [4, 5]]), y[0, 0, :2]),
    "searchsorted": lambda x, y: ops.searchsorted(np.asarray(_BINS, "f"), x[0, 0, 0]),
    **{
        name: lambda x, y, name=name: getattr(ops, name)(x[0], np.asarray([0, 0, 1, 1, 1, 2, 2, 3]), 4)
        for name in ("segment_max", "segment_min", "segment_prod", "segment_sum")
    },
    "select": lambda x, y: ops.select([x > 0.5, y > 0.5], [x, y], 0.1),
    "separable_conv": lambda x, y: ops.separable_conv(x, _KERNEL[..., :1], _KERNEL[:1, :1]),
    "slice": lambda x, y: ops.slice(x, (0, 1, 1, 0), (1, 4, 4, 4)),
    "slice_update": lambda x, y: ops.slice_update(x, (0, 1, 1, 0), y[:, :4, :4]),
    "solve": lambda x, y: ops.solve(_square(x), ops.transpose(y[:, :, :4], (0, 1, 2, 3))),
    "solve_triangular": lambda x, y: ops.solve_triangular(_square(x), y[:, :, :4]),
    "space_to_depth": lambda x, y: ops.space_to_depth(x, 2),
    "split": lambda x, y: ops.split(x, 2, axis=-1),
    "squeeze": lambda x, y: ops.squeeze(x[:, :1], 1),
    "stack": lambda x, y: ops.stack([x, y], 1),
    "stft": lambda x, y: ops.stft(_flat(x), 32, 16, 32),
    "swapaxes": lambda x, y: ops.swapaxes(x, 1, 2),
    "take": lambda x, y: ops.take(x, np.asarray([0, 3, 2]), axis=1),
    "take_along_axis": lambda x, y: ops.take_along_axis(x, ops.argsort(y, axis=1), axis=1),
    "tensordot": lambda x, y: ops.tensordot(x, _ROWS, 1),
    "threshold": lambda x, y: ops.threshold(x, 0.2, 0.1),
    "tile": lambda x, y: ops.tile(x, (1, 2, 1, 1)),
    "top_k": lambda x, y: ops.top_k(x, 2),
    "transpose": lambda x, y: ops.transpose(x, (0, 2, 3, 1)),
    "true_divide": lambda x, y: ops.true_divide(x, ops.relu(y) + 0.3),
    "unfold": lambda x, y: ops.unfold(x, 2),
    "unstack": lambda x, y: ops.unstack(x, axis=-1),
    "vander": lambda x, y: ops.vander(x[0, 0, :, 0], 3),
    "vdot": lambda x, y: ops.vdot(x[0], y[0]),
    "vstack": lambda x, y: ops.vstack([x, y]),
    "where": lambda x, y: ops.where(x > y, x, y),
    **{
        name: lambda x, y, name=name: getattr(ops, name)(_square(x)) for name in ("cholesky", "cholesky_inverse", "det")
    },
    **{
        name: lambda x, y, name=name: getattr(ops, name)(_square(x))
        for name in ("eig", "eigh", "inv", "logdet", "slogdet")
    },
}
#: What the operand is made of, the first that gives finite results.
_DOMAINS: tuple[Callable[[Any], Any], ...] = (
    lambda x: x,
    lambda x: ops.relu(x) + 0.1,
    lambda x: 0.8 * ops.sigmoid(x) + 0.1,
    lambda x: ops.relu(x) + 1.1,
)
#: Functions that are called with the first sample of a batch, or with all of it.
_ACROSS_SAMPLES = {
    *("broadcast_to", "corrcoef", "correlate", "cross", "histogram", "lstsq", "meshgrid", "outer", "psnr", "scatter"),
    *("scatter_update", "searchsorted", "segment_max", "segment_min", "segment_prod", "segment_sum", "slice"),
    *("slice_update", "tensordot", "vander", "vdot", "ravel", "allclose", "diag", "diagflat", "trace", "nonzero"),
    *("kron", "flipud", "hstack", "vstack", "dstack", "rearrange", "rot90", "inner", "unique", "median", "nanmedian"),
}
_TRUTHS = {"all", "any", "logical_and", "logical_not", "logical_or", "logical_xor", "count_nonzero"}


def op_cases() -> dict[str, MakeCase]:
    """``"ops.NAME"`` -> case behind a kernel, ``"ops.NAME, input"`` -> case on the input."""
    names = [name for name, it in sorted(vars(ops).items()) if callable(it) and name not in LEFT_OUT]
    behind = {f"ops.{name}": partial(_case, name, True) for name in names}
    return behind | {f"ops.{name}, input": partial(_case, name, False) for name in names}


def _case(name: str, behind_kernel: bool, draw: int) -> Case:
    for domain in _DOMAINS:
        keras.utils.set_random_seed(draw)
        case = with_samples(_network(name, domain, behind_kernel), draw)
        found = keras.tree.flatten(case.model(next(iter(batches(case.held_out, case.model)))))
        if all(np.isfinite(np.asarray(it, np.float64)).all() for it in found):
            return case
    raise ValueError(f"keras.ops.{name} has no finite results")


def _network(name: str, domain: Callable, behind_kernel: bool) -> keras.Model:
    batch = 1 if name in _ACROSS_SAMPLES else None
    inputs = [keras.Input(SHAPE, batch_size=batch, name=f"x{at}") for at in range(2)]
    tensors = [stem(x) if behind_kernel else x for x in inputs]
    operands = [x > 0.0 if name in _TRUTHS else domain(x) for x in tensors]
    results = [part for part in keras.tree.flatten(_apply(name, *operands)) if part is not None]
    outputs = results if len(results) > 1 else results[0]
    try:
        return keras.Model(inputs[0], outputs)
    except ValueError:  # it reads the second input as well
        return keras.Model(inputs, outputs)


def _apply(name: str, x: Any, y: Any) -> Any:
    if name in CALLS:
        return CALLS[name](x, y)
    function, problem = getattr(ops, name), None
    axis = inspect.signature(function).parameters.get("axis")
    options = {"axis": -1} if axis is not None and axis.default is None else {}
    for arguments in ((x,), (x, y), ([x, y],)):
        try:
            return function(*arguments, **options)
        except (TypeError, ValueError, AttributeError) as error:
            problem = problem or error
    raise ValueError(f"keras.ops.{name} needs a row in CALLS") from problem
