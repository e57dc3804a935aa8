"""Benchmarks on real networks: ``python -m benchmarks`` measures and writes ``docs/benchmarks.md``."""
