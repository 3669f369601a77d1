"""The configurations of the demo's sidecars.

Two are in redisha's own form: a group's member, and a route with a mirror. Two are the Envoy files that redisha was
made for, with this machine's addresses in place of Kubernetes' names: the texts lie beside this file, as they were
published; only hosts and ports are replaced.
"""

import re
from collections.abc import Mapping
from pathlib import Path

PAIR = "envoy-pair.yaml"
"""Two Redis servers, each with a sidecar that mirrors to the other's."""
PREFIX = "envoy-prefix.yaml"
"""One master, and copies of the keys ``departments…`` and ``employees…``."""

_HERE = Path(__file__).parent

# The second file was published without its admin section.
_ADMIN = """\
admin:
  address:
    socket_address:
      address: 127.0.0.1
      port_value: 8001
"""


def envoy_file(name: str, places: Mapping[str, int], port: int, admin: int, *, other_member: bool = False) -> str:
    """One of the files for this machine.

    Args:
        name: :data:`PAIR` or :data:`PREFIX`.
        places: for each host name of the file, the port of 127.0.0.1 where that Redis is.
        port: where clients come in, instead of 6380.
        admin: where the admin server listens, instead of 8001.
        other_member: whether it is for the other sidecar of the pair: there the two names are in each other's place.
    """
    text = (_HERE / name).read_text()
    if other_member:
        text = re.sub(r"redis-envoy-00([12])", lambda match: f"redis-envoy-00{3 - int(match[1])}", text)
    text = text if "admin:" in text else _ADMIN + text
    text = text.replace("address: 0.0.0.0", "address: 127.0.0.1")
    for host, place in places.items():
        there = rf"address: {re.escape(host)}\n(\s+)port_value: 6379"
        text = re.sub(there, rf"address: 127.0.0.1\n\g<1>port_value: {place}", text)
    return text.replace("port_value: 6380", f"port_value: {port}").replace("port_value: 8001", f"port_value: {admin}")


def one_way(primary: int, mirror: int, port: int, admin: int) -> str:
    """A file in redisha's own form: one Redis, and a mirror that nobody else writes to.

    Args:
        primary: the port of 127.0.0.1 where the Redis is.
        mirror: the same of its mirror.
        port: where clients come in.
        admin: where the admin server listens.
    """
    return f"""\
admin: {{bind: "127.0.0.1:{admin}"}}
listeners:
  - bind: ["127.0.0.1:{port}"]
    routes:
      - {{prefix: "", cluster: redis-primary, mirrors: [{{cluster: redis-mirror}}]}}
clusters:
  redis-primary: {{endpoints: ["127.0.0.1:{primary}"], discovery: static}}
  redis-mirror: {{endpoints: ["127.0.0.1:{mirror}"], discovery: static}}
"""


def member(name: str, redis: int, listen: int, peer: int, port: int, admin: int) -> str:
    """A file in redisha's own form: one member of a group of two.

    Args:
        name: the member's.
        redis: the port of 127.0.0.1 where its Redis is.
        listen: where the other member comes in.
        peer: the same of the other one.
        port: where clients come in.
        admin: where the admin server listens.
    """
    return f"""\
admin: {{bind: "127.0.0.1:{admin}"}}
listeners:
  - {{bind: "127.0.0.1:{port}", group: cache}}
group:
  name: cache
  member: {name}
  listen: "127.0.0.1:{listen}"
  redis: "127.0.0.1:{redis}"
  peers: ["127.0.0.1:{peer}"]
  write_consistency: quorum
"""
