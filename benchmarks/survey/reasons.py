"""Why tfptq is behind the converter in a case, or refuses what the converter takes."""

_ZERO_POINT = (
    "the second factor of a product of two activations gets the zero point 0, since runtimes differ on others; that "
    "costs a bit where its values have one sign"
)

_FLOAT_ELU = "the converter has no int8 rule for ELU, so that its file is the float one; tfptq's is on integers"
#: Case -> reason.
REASONS = {
    "ops.elu": _FLOAT_ELU,
    "layers.Dot": _ZERO_POINT,
}
