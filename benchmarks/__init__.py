"""Measurements of DMS, printed as tables; `python -m benchmarks` runs them all."""
