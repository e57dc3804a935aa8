"""Layouts: the ways in which the codes of one kernel can lie in the file, each with the same weights.

* ``int8``: an ordinary int8 constant with a scale per output channel, codes times integer multipliers. Runs on every
  kernel and delegate at full speed.
* ``int4``: the same, two codes a byte, where they fit. Stock CPU kernels for INT4 convolutions are 7 to 20 times slower
  than those for INT8.
* ``native``: FULLY_CONNECTED with ``BlockwiseQuantization``. Computes on activations that are quantized at run time.
* ``inline``: constant -> DEQUANTIZE -> MUL(block scales) -> RESHAPE -> the operator, in float.
* ``composite``: the same inside a STABLEHLO_COMPOSITE that an NPU compiler can match.

``choose`` says which layouts a layer can have; the other modules write them.
"""
