"""Ports nobody else is going to take."""

import random
import socket

# Below the range from which the system picks the local port of outgoing connections, so that a
# connection made by another test cannot take the port between our look and the server's bind.
_FIRST, _LAST = 12_000, 32_000
_given: set[int] = set()


def free_port() -> int:
    """A port of 127.0.0.1 that is free now and that this process has not given out before."""
    for _ in range(1_000):
        port = random.randint(_FIRST, _LAST)
        if port in _given:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        _given.add(port)
        return port
    raise RuntimeError(f"no free port between {_FIRST} and {_LAST}")
