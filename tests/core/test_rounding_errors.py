import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tfptq.core import rounding_errors as module
from tfptq.core.affine import WEIGHT_BITS, nearest_codes


def expected(units, scales, shape, bits):
    """The same, block by block."""
    m, n = shape
    found = np.empty((-(-units.shape[0] // m), -(-units.shape[1] // n)))
    scales = np.broadcast_to(scales, found.shape)
    for (v, h), scale in np.ndenumerate(scales):
        block = units[v * m : (v + 1) * m, h * n : (h + 1) * n].astype(np.float64)
        found[v, h] = np.sum((nearest_codes(block, scale, bits) * float(scale) - block) ** 2)
    return found


@given(st.integers(0, 999), st.integers(1, 8), st.integers(1, 7), st.sampled_from(WEIGHT_BITS), st.data())
@settings(max_examples=60)
def test_errors_of_all_candidates_in_all_pieces(seed, m, n, bits, data):
    rng = np.random.default_rng(seed)
    units = rng.standard_normal((7, 6, 3)).astype(np.float32)
    rows = data.draw(st.sampled_from([1, -(-7 // m)]))
    columns = data.draw(st.sampled_from([1, -(-6 // n)]))
    candidates = rng.uniform(0.02, 0.5, (4, rows, columns)).astype(np.float32)
    usual = module._PIECE
    try:
        module._PIECE = data.draw(st.sampled_from([1, 60, usual]))
        found = module.rounding_errors(units, candidates, (m, n), bits)
    finally:
        module._PIECE = usual
    wanted = np.stack([expected(units, scales, (m, n), bits) for scales in candidates])
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-6)
