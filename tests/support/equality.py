"""Do two servers hold the same, functions included, apart from what redisha itself keeps in them?"""

import time

import redis
from support.compare import Snapshot, differences, snapshot
from support.redis_server import RedisServer

OWN_PREFIX = b"redisha_"
"""How the function libraries begin that are redisha's markers."""
OWN_KEY = b"redisha:markers"
"""The hash that stands for them where there are no functions."""
_SHOWN = 20


def libraries(server: RedisServer) -> dict[bytes, bytes]:
    """Function library → code, without redisha's markers."""
    found = _listed(server)
    return {name: code for name, code in found.items() if not name.startswith(OWN_PREFIX)}


def markers(server: RedisServer) -> dict[bytes, str]:
    """Marker library → its line: set, role, generation, complete or partial."""
    return {
        name: next((line for line in code.decode().splitlines() if line.startswith("-- redisha:")), "")
        for name, code in _listed(server).items()
        if name.startswith(OWN_PREFIX)
    }


def _listed(server: RedisServer) -> dict[bytes, bytes]:
    try:
        listed = server.cli("FUNCTION", "LIST", "WITHCODE")
    except redis.ResponseError:
        return {}  # renamed
    libraries = (dict(zip(flat[::2], flat[1::2], strict=True)) for flat in listed)
    return {library[b"library_name"]: library[b"library_code"] for library in libraries}


def contents(server: RedisServer) -> Snapshot:
    """All keys of all databases, without redisha's own."""
    return {place: value for place, value in snapshot(server).items() if place[1] != OWN_KEY}


def unequal(a: RedisServer, b: RedisServer) -> list[str]:
    """One line for each key and function library that differs."""
    return _unequal(contents(a), contents(b), libraries(a), libraries(b))


def _unequal(
    a_keys: Snapshot, b_keys: Snapshot, a_libraries: dict[bytes, bytes], b_libraries: dict[bytes, bytes]
) -> list[str]:
    return differences(a_keys, b_keys) + [
        f"function library {name!r}: {a_libraries.get(name)!r} and {b_libraries.get(name)!r}"
        for name in sorted(a_libraries.keys() | b_libraries.keys())
        if a_libraries.get(name) != b_libraries.get(name)
    ]


def assert_same(a: RedisServer, b: RedisServer, within: float = 3.0) -> int:
    """Both hold the same, now or as soon as the keys with short lives have ended; returns how many keys."""
    deadline = time.monotonic() + within
    while True:
        keys = contents(a)
        found = _unequal(keys, contents(b), libraries(a), libraries(b))
        if not found:
            return len(keys)
        if time.monotonic() >= deadline:
            shown = "\n".join(found[:_SHOWN])
            raise AssertionError(f"{len(found)} differences between {a.address} and {b.address}:\n{shown}")
        time.sleep(0.1)


def assert_same_digest(a: RedisServer, b: RedisServer) -> int:
    """The same by Redis's own digest, for data that is too large to read; returns how many keys in database 0."""
    digests = [server.client(socket_timeout=120).execute_command("DEBUG", "DIGEST") for server in (a, b)]
    assert digests[0] == digests[1], f"{a.address} and {b.address} differ: {digests}"
    return a.cli("DBSIZE")
