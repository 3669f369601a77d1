"""redisha makes standalone Redis servers highly available by routing and mirroring.

Nothing is imported here, so that ``redisha --help`` and ``redisha run`` start at once.
"""

__version__ = "0.1.0"
