"""What one can do while the demo stays up."""

import signal
from typing import NoReturn

from redisha.demo.report import Report
from redisha.demo.tour import Pair


def stay(report: Report, pair: Pair) -> NoReturn:
    """Tell what to try, and wait for a signal, which raises ``Stopped``."""
    report.heading("Everything is still running. Try, in another terminal:")
    one, two = pair.sidecar_001, pair.sidecar_002
    for command, what in (
        (f"redis-cli -p {one.port} set mykey myvalue", "write through one sidecar …"),
        (f"redis-cli -p {two.port} get mykey", "… and read through the other"),
        (f"redis-cli -p {pair.redis_002.port} monitor", "what arrives at redis-002"),
        (f"redis-benchmark -q -p {one.port} -t set,get", "measure again"),
        (f"redisha status --admin 127.0.0.1:{one.admin}", "servers, and how far the mirror is"),
        (f"redisha verify {pair.redis_001.url} {pair.redis_002.url}", "are the two equal?"),
        (f"curl 127.0.0.1:{one.admin}/replicas", "all that is known of the mirror"),
        (f"curl '127.0.0.1:{one.admin}/stats?usedonly'", "all statistics; open / in a browser for more"),
        (f"redisha check {one.file}", "what the configuration does"),
        (f"redisha convert {one.file}", "the same in redisha's own form"),
    ):
        report.line(f"{command:<68} # {what}")
    report.heading("Ctrl-C ends it.")
    while True:
        signal.pause()
