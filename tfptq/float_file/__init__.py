"""Any source to a float ``.tflite`` file with its kernels found."""
