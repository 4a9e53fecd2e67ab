"""The promises of speed as numbers, each beside its floor: `python -m bench`. How to read them: docs/benchmarks.md."""
