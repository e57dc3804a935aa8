"""From partial sums of blocks to output codes, in integers.

With ``A[o, h]`` the partial sum of block column ``h`` for output ``o`` in block row ``v``, and ``u[v]`` the unit of the
accumulator (a real number that only set-up sees):

    acc[o]  = sum over h of  combine(A[o, h])  +  bias[o]        unit  s_x * u[v]
    code[o] = clip(zero_point + rescale(acc[o], M[v], exponent[v] - k[o]))      M, exponent of  s_x * u[v] / s_y

========================  ==============================  ============================  =========================
scales                    combine                         u[v]                          multipliers to hold
========================  ==============================  ============================  =========================
WES                       A (one column)                  base                          1, and shifts k[o]
one column                A                               S[v, 0]                       one per distinct S[v, 0]
integer                   r[v,h] * A                      base[v]                       one per distinct base
shift                     A << (factor[v,h] - e[v])       base[v] * 2**e[v]             one per distinct unit
float                     A * S[v,h] * 2**g / max S[v]    max over h of S[v,h] / 2**g   one per block
========================  ==============================  ============================  =========================

All kinds but the last give the codes of LiteRT's int8 reference kernels bit for bit. For float blocks every partial
sum is rescaled in fixed point, with ``g`` guard bits below the unit of the row's largest scale; ``g`` is the most that
lets no accumulator leave int32, up to 8. Its error is at most half a guard unit per block.
"""

from dataclasses import dataclass

import numpy as np

from tfptq.npu.fixed_point import check_int32, quantize_multiplier, rescale
from tfptq.tflite.metadata import TensorBlocks

#: Most guard bits below the unit of a row with float scales.
MOST_GUARD_BITS = 8


@dataclass(frozen=True, eq=False)
class Requantization:
    """Integers that a device keeps for one layer.

    Attributes:
        mantissa: int64 ``[O]``, Q31 mantissa of each output channel.
        exponent: int64 ``[O]``, its exponent, less the right shift of the channel.
        multipliers: number of different multipliers (mantissa and exponent, shifts left out) that the device holds.
        unit: float64 ``[O]``, real unit of the weights' part of the accumulator, to convert a float bias.
        block_factors: int64 ``[O, H]`` to multiply partial sums with; for float scales their Q31 mantissas.
        block_exponents: ``[O, H]`` exponents of these for float scales, None for the others.
    """

    mantissa: np.ndarray
    exponent: np.ndarray
    multipliers: int
    unit: np.ndarray
    block_factors: np.ndarray
    block_exponents: np.ndarray | None
    single_rounding: bool

    @property
    def columns(self) -> int:
        """Number ``H`` of partial sums per output."""
        return self.block_factors.shape[1]

    def combine(self, partial: np.ndarray, column: int) -> np.ndarray:
        """Bring partial sums ``[..., O]`` of a block column to the unit of the int32 accumulator."""
        check_int32(partial)
        if self.block_exponents is None:
            return check_int32(partial * self.block_factors[:, column])
        return rescale(partial, self.block_factors[:, column], self.block_exponents[:, column], True)

    def to_codes(self, accumulators: np.ndarray, zero_point: int, code_range: tuple[int, int]) -> np.ndarray:
        """int8 codes of int32 accumulators ``[..., O]``."""
        codes = zero_point + rescale(check_int32(accumulators), self.mantissa, self.exponent, self.single_rounding)
        return np.clip(codes, *code_range).astype(np.int8)

    @property
    def rescales_per_output(self) -> int:
        """Multiplications or shifts per output value: one, and one more per block if there are several."""
        return 1 if self.columns == 1 else self.columns + 1


def plan_requantization(
    blocks: TensorBlocks, input_scale: float, output_scale: float, fan_in: int, single_rounding: bool
) -> Requantization:
    """Find the integers for a layer; ``fan_in`` (products in one output) bounds the accumulator for float scales."""
    block_factors, block_exponents, unit = _block_rescale(blocks, fan_in)
    if blocks.is_shift_scaler:
        mantissa, exponent = quantize_multiplier(input_scale * float(blocks.base[0]) / output_scale)
        shifts = -blocks.factors[:, 0].astype(np.int64)
        mantissas, exponents, count = np.full(blocks.outputs, mantissa), exponent - shifts, 1
    else:
        pairs = np.array([quantize_multiplier(input_scale * float(row) / output_scale) for row in unit])
        mantissas, exponents, count = pairs[:, 0], pairs[:, 1], len(np.unique(pairs, axis=0))
    if block_exponents is not None:
        count += block_factors[:: blocks.block_shape[0]].size
    return Requantization(mantissas, exponents, count, unit, block_factors, block_exponents, single_rounding)


def _block_rescale(blocks: TensorBlocks, fan_in: int) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
    """Factors ``[O, H]``, exponents ``[O, H]`` or None, unit ``[O]``."""
    scales = blocks.scales()

    def per_output(rows: np.ndarray) -> np.ndarray:
        return np.repeat(rows, blocks.block_shape[0], axis=0)[: blocks.outputs]

    if blocks.factors.shape[1] == 1 or blocks.scale_kind != "float":
        return per_output(blocks.multipliers().astype(np.int64)), None, blocks.row_scales().astype(np.float64)
    values = scales.values().astype(np.float64)
    bound = fan_in * 255 * 127
    guard = int(np.clip(30 - bound.bit_length(), 0, MOST_GUARD_BITS))
    largest = values.max(axis=1, keepdims=True)
    pairs = np.array([[quantize_multiplier(ratio) for ratio in row] for row in np.ldexp(values / largest, guard)])
    unit = np.ldexp(largest[:, 0], -guard)
    return per_output(pairs[..., 0]), per_output(pairs[..., 1]), per_output(unit)
