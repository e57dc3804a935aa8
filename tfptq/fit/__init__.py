"""Measure activations, and fit the weights to them."""
