"""The checkers find what they are there to find."""

import pytest

from support.crowd import Crowd
from support.ledger import Bag, Counter, Fate, Register, fate

DONE, REFUSED, IN_DOUBT = Fate.DONE, Fate.REFUSED, Fate.IN_DOUBT


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (b"+OK\r\n", DONE),
        (b"-WRONGTYPE x\r\n", DONE),
        (b"-INDOUBT redis-001: x\r\n", IN_DOUBT),
        (b"-UNAVAILABLE redis-001: x\r\n", REFUSED),
        (b"-TIMEOUT redis-001: x\r\n", REFUSED),
        (None, IN_DOUBT),
    ],
)
def test_fate(reply: bytes | None, expected: Fate) -> None:
    """A reply that never came may have been applied; only the proxy's own words say that nothing was."""
    assert fate(reply) is expected


def test_register() -> None:
    """Exactly what was acknowledged last, or what was in doubt since."""
    register = Register()
    register.write(DONE, {b"1"})
    register.write(REFUSED, {b"2"})
    assert not register.wrong(b"1")
    assert register.wrong(b"2")
    assert register.wrong(None)
    register.write(IN_DOUBT, {None})
    assert not register.wrong(None)
    assert not register.wrong(b"1")
    register.write(DONE, {b"3"})
    assert register.wrong(None)


def test_counter() -> None:
    """Between what was acknowledged and what may have been."""
    counter = Counter()
    assert not counter.add(DONE, 5, 5)
    assert not counter.add(IN_DOUBT, 2, None)
    assert not counter.add(IN_DOUBT, -1, None)
    assert not counter.add(REFUSED, 100, None)
    assert [bool(counter.wrong(value)) for value in (3, 4, 7, 8)] == [True, False, False, True]
    assert not counter.add(DONE, 1, 8)  # so the 2 were applied, and the 1 was not taken off
    assert counter.wrong(7)
    assert counter.add(DONE, 1, 8)  # handed out twice
    assert not counter.add(DONE, 1, None)
    assert not counter.wrong(9)


def test_bag() -> None:
    """Everything acknowledged once, nothing refused, nothing that was taken out."""
    bag = Bag()
    bag.put(DONE, [b"a", b"b", b"c"])
    bag.put(IN_DOUBT, [b"d"])
    bag.put(REFUSED, [b"e"])
    assert not bag.take(DONE, [b"a"])
    assert bag.take(DONE, [b"a"])
    assert bag.take(DONE, [b"e"])
    assert not bag.wrong([b"b", b"c"])
    assert not bag.wrong([b"b", b"c", b"d"])
    assert bag.wrong([b"b"])
    assert bag.wrong([b"b", b"b", b"c"])
    assert bag.wrong([b"a", b"b", b"c"])
    assert bag.wrong([b"b", b"c", b"e"])
    bag.take(IN_DOUBT, (), at_most=1)
    assert not bag.wrong([b"b"])
    assert bag.wrong([])


def test_writers_notice_what_is_missing(redis_server) -> None:
    """On a Redis without a sidecar all is well; one key of any kind taken away is noticed."""
    server = redis_server()
    with Crowd(server.port, seed=1, writers=2, wild=0, pace=0.001) as crowd:
        crowd.acknowledges(1_500)
    crowd.assert_kept(server)
    crowd.assert_undisturbed()
    for kind in ("n", "list", "set", "zset", "stream", "hash", "sums-hash", "sums-zset", "twin-a"):
        keys = [(database, key) for database in (0, 1) for key in server.cli("KEYS", f"c0:{kind}:*", db=database)]
        database, key = keys[0]
        kept = server.cli("DUMP", key, db=database)
        server.cli("DEL", key, db=database)
        with pytest.raises(AssertionError, match=key.decode()):
            crowd.assert_kept(server)
        server.cli("RESTORE", key, 0, kept, db=database)
    crowd.assert_kept(server)
