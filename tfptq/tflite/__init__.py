"""The `.tflite` side: float_file, emitter, metadata, inspection, verification."""
