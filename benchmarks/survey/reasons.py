"""Why tfptq is behind the converter in a case, or refuses what the converter takes."""

_ZERO_POINT = (
    "the second factor of a product of two activations gets the zero point 0, since runtimes differ on others; that "
    "costs a bit where its values have one sign"
)

_FLOAT_ELU = "the converter has no int8 rule for ELU, so that its file is the float one; tfptq's is on integers"
_FEW_SAMPLES = (
    "16 samples with 3 x 3 positions are few for the ranges of single channels; nearer with `equalize=False` and "
    "`min_max` ranges"
)
#: Case -> reason.
REASONS = {
    "ops.elu": _FLOAT_ELU,
    "layers.Dot": _ZERO_POINT,
    "applications.Xception": _FEW_SAMPLES,
}
