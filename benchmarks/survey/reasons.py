"""Why tfptq is behind the converter in a case, or refuses what the converter takes."""

_ZERO_POINT = (
    "the second factor of a product of two activations gets the zero point 0, since runtimes differ on others; that "
    "costs a bit where its values have one sign"
)

#: Case -> reason.
REASONS = {
    "layers.Dot": _ZERO_POINT,
}
