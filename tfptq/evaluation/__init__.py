"""What a ``.tflite`` file computes on labelled samples, beside the float model it came from."""
