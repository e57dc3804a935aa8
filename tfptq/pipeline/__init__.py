"""The steps of a job, and its result."""
