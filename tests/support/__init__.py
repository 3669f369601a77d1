"""What the tests share: real servers, real sidecars, raw connections, a relay, and waiting with deadlines.

Each module has one job:

- :mod:`~support.ports`: ports nobody else is going to take.
- :mod:`~support.wait`: waiting for a condition, with a deadline.
- :mod:`~support.process`: a child process that never outlives the tests.
- :mod:`~support.redis_server`: a real ``redis-server``.
- :mod:`~support.sidecar`: a running ``redisha run``.
- :mod:`~support.hooked`: the same with hooks to make it panic, or to block its control plane.
- :mod:`~support.configs`: the configurations most tests use.
- :mod:`~support.wire`: RESP as raw bytes over a blocking socket.
- :mod:`~support.relay`: a TCP relay that can be cut, stalled and garbled.
- :mod:`~support.compare`: are two Redis servers equal?
- :mod:`~support.load`, :mod:`~support.client_load`: random commands, seeded, and clients that send them.
- :mod:`~support.seed`: the Envoy files of the article that redisha was made for.
"""
