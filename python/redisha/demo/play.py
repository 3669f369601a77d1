"""What one can do while the demo stays up."""

import signal
from typing import NoReturn, TypeAlias

from redisha.demo.members import Members
from redisha.demo.report import Report
from redisha.demo.tour import Pair

Suggestions: TypeAlias = tuple[tuple[str, str], ...]
"""Commands, each with what it shows."""

_WIDTH = 68


def for_group(members: Members) -> Suggestions:
    """What to try with a group."""
    leader = members.wait_in_sync()
    follower = members.other(leader)
    admin = f"--admin 127.0.0.1:{follower.sidecar.admin}"
    one, two = leader.sidecar, follower.sidecar
    return (
        (f"redis-cli -p {two.port} incr counter", "write through one side …"),
        (f"redis-cli -p {one.port} incr counter", "… and through the other"),
        (f"redis-cli -p {follower.server.port} get counter", "both Redis servers have it"),
        (f"redisha status {admin} --watch", "who leads, and how each member is"),
        (f"redis-benchmark -q -l -p {two.port} -t set,get", "load, while you …"),
        (f"redis-cli -p {leader.server.port} shutdown nosave", "… end the leader's Redis; start it again with"),
        (f"redis-server {leader.server.options}", ""),
        (f"redisha leader {follower.name} {admin}", "let the other one lead"),
        (f"redisha verify {leader.server.url} {follower.server.url}", "are the two equal?"),
        (f"curl 127.0.0.1:{one.admin}/group", "all that is known of the group; open / in a browser"),
        (f"redisha check {one.file}", "what the configuration does"),
    )


def for_pair(pair: Pair) -> Suggestions:
    """What to try with two sidecars that mirror to each other."""
    one, two = pair.sidecar_001, pair.sidecar_002
    return (
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
    )


def stay(report: Report, suggestions: Suggestions) -> NoReturn:
    """Tell what to try, and wait for a signal, which raises ``Stopped``."""
    report.heading("Everything is still running. Try, in another terminal:")
    for command, what in suggestions:
        report.line(f"{command:<{_WIDTH}}{f' # {what}' if what else ''}")
    report.heading("Ctrl-C ends it.")
    while True:
        signal.pause()
