"""The papers as pure functions on arrays: no Keras, no files."""
