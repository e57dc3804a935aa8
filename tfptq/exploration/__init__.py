"""What other configs would make of a model: sensitivity of its layers, and the search for the smallest good file."""
