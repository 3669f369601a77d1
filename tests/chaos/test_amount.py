"""How much is copied after an outage: the keys that were written, and few others."""

import pytest

from support.equality import assert_same_digest
from support.stage import AOF, Stage, restarted

LARGEST_SHARE = 0.03
"""Of all keys, when one in a hundred was written. 2^20 buckets: another key shares each dirty one at a million keys."""


def _outage(scene: Stage, keys: int, written: int) -> None:
    with scene.proxy.conn(timeout=60) as conn:
        scene.mirror.kill()
        step = keys // written
        names = [f"fill:{number * step}" for number in range(written)]
        for start in range(0, written, 1_000):
            replies = conn.pipeline(*[("SET", name, "written") for name in names[start : start + 1_000]])
            assert set(replies) == {b"+OK\r\n"}
        with scene.healing("buckets", noticed=restarted, timeout=120):
            scene.mirror.start()
    scene.until_whole()
    copied = scene.told[-1].keys
    assert assert_same_digest(scene.primary, scene.mirror) == keys
    assert written <= copied <= keys * LARGEST_SHARE
    # Each key is copied once: redisha did not count less than it did.
    restored = scene.mirror.client().info("commandstats").get("cmdstat_restore", {}).get("calls", 0)
    assert restored <= copied + 100


@pytest.mark.timeout(120)
def test_a_thousand_of_a_hundred_thousand(stage) -> None:
    """100,000 keys, 1,000 of them written while the mirror was away."""
    scene = stage(mirror=AOF, keys=100_000, databases=(0,))
    _outage(scene, 100_000, 1_000)


@pytest.mark.chaos
@pytest.mark.timeout(600)
def test_ten_thousand_of_a_million(stage) -> None:
    """1,000,000 keys, 10,000 of them written while the mirror was away; the sidecar's memory stays what it was."""
    scene = stage(mirror=AOF, keys=1_000_000, databases=(0,), ready=False)
    scene.until_whole(300)
    before = scene.proxy.memory_bytes()
    _outage(scene, 1_000_000, 10_000)
    assert scene.proxy.memory_bytes() - before < 64 << 20
