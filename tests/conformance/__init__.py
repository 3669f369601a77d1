"""The test suite of Redis itself, run against a bare Redis and through redisha, and compared test by test.

Each module has one job:

- :mod:`~conformance.source`: getting the suite, once, into a cache outside the tree.
- :mod:`~conformance.modes`: what answers on the port that the suite is pointed at.
- :mod:`~conformance.unit`: running one unit of the suite to its end.
- :mod:`~conformance.output`: reading what the suite printed.
- :mod:`~conformance.expected`: which tests need not pass in which mode, and why.
- :mod:`~conformance.report`: the table and the verdict.
"""
