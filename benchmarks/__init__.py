"""Measurements of the real system. `python -m benchmarks --help`; every command ends with one JSON line on stdout."""
