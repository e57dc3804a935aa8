"""From a float file, grids and quantized kernels to a quantized file."""
