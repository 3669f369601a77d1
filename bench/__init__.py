"""Side-by-side measurements of redisha, a bare Redis and other proxies.

``python -m bench.run`` prints a report. What is measured is data in :mod:`bench.workloads`; what it is measured on is
in :mod:`bench.engines`; no number is hard-coded but the targets, in :mod:`bench.targets`.
"""
