"""Calibration data of any kind as named batches. ``errors`` loads neither Keras nor TensorFlow."""
