"""End-to-end measurements against stock chgnet on the same weights.

`python -m benchmarks.md`, `.memory`, `.parity` write results/*.json; `.report` makes docs/performance.md of them.
"""
