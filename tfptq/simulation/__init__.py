"""Put what was fitted into the Keras simulation."""
