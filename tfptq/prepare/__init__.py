"""What happens to the Keras network before conversion. Each step is float-equal, and checked for it."""
