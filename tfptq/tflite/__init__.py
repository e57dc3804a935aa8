"""The `.tflite` side: skeleton, emitter, metadata, inspection, verification."""
