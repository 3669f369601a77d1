"""The small languages inside Dynomite's values: addresses, servers, seeds, tokens.

Every parser raises :class:`~redisha.config.scalars.ScalarError`, whose text fits behind a field's path.
"""

import re
from dataclasses import dataclass

from redisha.config.scalars import ScalarError, parse_endpoint

MAX_TOKEN = 2**32 - 1


@dataclass(frozen=True, slots=True)
class Place:
    """Where a node is in Dynomite's cluster.

    Attributes:
        datacenter: A set of racks.
        rack: A set of nodes that together hold all keys once.
        tokens: Where the node's part of its rack's ring begins.
    """

    datacenter: str
    rack: str
    tokens: tuple[int, ...]

    @property
    def member(self) -> str:
        """The name that such a node has in a group."""
        first = self.tokens[0] if self.tokens else 0
        return re.sub(r"[^A-Za-z0-9_.-]", "-", f"{self.datacenter}/{self.rack}/{first}", flags=re.ASCII)


@dataclass(frozen=True, slots=True)
class Seed:
    """Another node, as ``dyn_seeds`` tells it.

    Attributes:
        address: ``host:port`` of its peer port.
        place: Where it is.
    """

    address: str
    place: Place


def parse_listen(text: str) -> str:
    """``host:port`` or ``/path``, as an address to listen on in the native form.

    Whether the host is an address is the model's affair; only ``localhost`` is one by another name.
    """
    if text.startswith("/"):
        return f"unix:{text}"
    host, _, port = text.rpartition(":")
    return _address("127.0.0.1" if host == "localhost" else host, port) if host and port else text


def parse_server(text: str) -> str:
    """``host:port:weight [name]`` or ``/path:weight [name]``, as an endpoint in the native form.

    Raises:
        ScalarError: It is neither, or the host or the port is none.
    """
    spec = text.split()[0] if text.split() else ""
    parts = spec.rsplit(":", 1 if spec.startswith("/") else 2)
    expected = 2 if spec.startswith("/") else 3
    if len(parts) != expected or not re.fullmatch(r"[0-9]+", parts[-1], re.ASCII):
        raise ScalarError(f"expected host:port:weight, found '{text}'", "write for example redis-001:6379:1")
    address = f"unix:{parts[0]}" if expected == 2 else _address(parts[0], parts[1])
    return str(parse_endpoint(address))


def parse_seed(text: str) -> Seed:
    """``host:port:rack:datacenter:tokens [name]``.

    Raises:
        ScalarError: It is not, or the host, the port or a token is none.
    """
    spec = text.split()[0] if text.split() else ""
    parts = spec.rsplit(":", 4)
    if len(parts) != 5 or not all(parts):
        raise ScalarError(
            f"expected host:port:rack:datacenter:tokens, found '{text}'", "write for example redis-002:8101:rack2:dc1:0"
        )
    host, port, rack, datacenter, tokens = parts
    return Seed(str(parse_endpoint(_address(host, port))), Place(datacenter, rack, parse_tokens(tokens)))


def parse_tokens(text: str) -> tuple[int, ...]:
    """``t1,t2``: numbers of 32 bits, in the order given.

    Raises:
        ScalarError: One of them is none.
    """
    tokens = []
    for part in text.split(","):
        token = part.strip()
        if not re.fullmatch(r"[0-9]{1,20}", token, re.ASCII) or int(token) > MAX_TOKEN:
            raise ScalarError(f"'{token}' is not a token", f"a token is a number up to {MAX_TOKEN}")
        tokens.append(int(token))
    return tuple(tokens)


def _address(host: str, port: str) -> str:
    """``host:port``; Dynomite writes IPv6 addresses without brackets."""
    return f"[{host}]:{port}" if ":" in host and not host.startswith("[") else f"{host}:{port}"
