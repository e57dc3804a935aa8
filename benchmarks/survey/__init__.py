"""Beside the TFLite converter on all that Keras has: layers, operations, structures, ``keras.applications``."""
