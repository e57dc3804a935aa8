"""What happens to the float network before it is quantized. Each step is float-equal, and checked for it."""
