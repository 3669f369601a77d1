"""Two Redis servers compared key by key, or one filled from the other. No sidecar is needed, and nothing is printed.

::

    compare ─► keys (SCAN) ─► walk ─► fast: pages of values, byte for byte ─────────────► the same
                                        └─ not the same there ─► recheck ─► look: by type, with expiry, several times
                                                                   └─ differs ─► copier (with repair): DUMP, RESTORE
    copy_all ─► keys (SCAN, sizes) ─► copier

Begin with :func:`~redisha.verify.compare.compare` and :func:`~redisha.verify.refill.copy_all`.
"""

from redisha.verify.compare import compare
from redisha.verify.errors import ServerError
from redisha.verify.options import Options, Progress
from redisha.verify.refill import CopyReport, Limits, copy_all
from redisha.verify.report import Counts, Difference, Report
from redisha.verify.server import Server, parse_url

__all__ = [
    "CopyReport",
    "Counts",
    "Difference",
    "Limits",
    "Options",
    "Progress",
    "Report",
    "Server",
    "ServerError",
    "compare",
    "copy_all",
    "parse_url",
]
