"""The promises of speed as numbers, each beside its floor: `python -m bench`. docs/benchmarks.md says how to read them."""
