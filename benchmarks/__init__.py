"""Benchmarks on real networks: ``python -m benchmarks`` measures and writes the tables of ``docs/benchmarks/``."""
