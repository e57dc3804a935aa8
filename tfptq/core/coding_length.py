"""Lossy coding length: how many bits a layer's weights need for a given distortion.

A weight matrix ``W [n, m]`` is read as ``m`` samples of an ``n``-dimensional Gaussian, its columns. Coding them up to
a mean squared error ``eps²`` of each entry (``n eps²`` of each column) takes::

    L(W) = (m + n)/2 * log2 det( I + n / (m n eps²) W Wᵀ )    bits

By ``det(I + c W Wᵀ) = det(I + c Wᵀ W)`` only the smaller Gram matrix is needed. A layer whose rows repeat each other
has a short code and stands coarse weights; one whose directions all matter has a long code.

**Comparable layers.** Weights of different layers have different units. Each layer is divided by the root mean
square of its weights, so that ``eps`` is a relative distortion and the rate does not change with the layer's scale.
With ``k = min(m, n)`` the length codes ``k`` vectors of either side, ``(m + n) k`` numbers; the *rate* is the length
per number, ``L / ((m + n) k)``. For independent Gaussian weights it is ``1/2 log2(1 + 1/eps²)`` whatever the shape.
(Per weight, ``L / (m n)``, a square matrix would seem to need twice the bits of a narrow one.)

Source: arXiv 2207.03088, section 3.4; the length is that of Ma et al., "Segmentation of multivariate mixed data via
lossy data coding and compression", IEEE TPAMI 2007.
"""

import numpy as np


def coding_length(matrix: np.ndarray, eps: float) -> float:
    """Lossy coding length of the columns of ``[n, m]`` in bits, for a root mean squared error ``eps`` of an entry."""
    matrix = np.asarray(matrix, np.float64)
    if matrix.ndim != 2 or not np.isfinite(matrix).all():
        raise ValueError(f"the coding length needs a finite matrix; found shape {matrix.shape}")
    if not eps > 0.0:
        raise ValueError(f"eps is {eps}; it must be positive")
    n, m = matrix.shape
    small = matrix if n <= m else matrix.T
    _, log_determinant = np.linalg.slogdet(np.eye(len(small)) + small @ small.T / (m * eps**2))
    return float((m + n) / 2.0 * log_determinant / np.log(2.0))


def coding_rate(view: np.ndarray, eps: float = 0.1) -> float:
    """Coding length per number of weights ``[O, I, T]``, comparable between layers of all shapes; 0 for zeros.

    ``eps`` is in units of the layer's root mean square weight.
    """
    matrix = np.asarray(view, np.float64).reshape(view.shape[0], -1)
    level = np.sqrt(np.mean(matrix**2))
    if level == 0.0:
        return 0.0
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    return coding_length(wide / level, eps) / (sum(wide.shape) * wide.shape[0])
