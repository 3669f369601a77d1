"""A file that sends writes past a mirror for a while, and the file before it again: the mirror is not what it was."""

import copy
from pathlib import Path

import pytest

from conftest import RedisFactory, SidecarFactory
from support import configs, wait
from support.compare import assert_equal
from support.ports import free_port
from support.redis_server import RedisServer
from support.sidecar import Sidecar


def without(config: configs.Config, mirror: RedisServer, how: str) -> configs.Config:
    """The same file, with writes that the mirror is not sent."""
    changed = copy.deepcopy(config)
    [listener] = changed["listeners"]
    [route] = listener["routes"]
    mirrors = route.pop("mirrors")
    if how == "its-name-is-gone":
        changed["clusters"]["redis-002"] = {"endpoints": ["gone.invalid:6379"]}
    elif how == "another-listener-has-it":
        second = {"name": "second", "bind": [f"127.0.0.1:{free_port()}"], "routes": [dict(route, mirrors=mirrors)]}
        changed["listeners"].append(second)
    else:
        del changed["clusters"]["redis-002"]
    return changed


@pytest.mark.parametrize("how", ["its-cluster-is-gone", "its-name-is-gone", "another-listener-has-it"])
def test_what_was_written_meanwhile_is_copied(
    redis_server: RedisFactory, sidecar: SidecarFactory, tmp_path: Path, how: str
) -> None:
    """Once the map of the first run was believed by the third one, and the mirror was in sync without those writes."""
    primary, mirror = redis_server(), redis_server()
    whole = configs.mirrored(primary.address, mirror.address)
    for turn, config in enumerate((whole, without(whole, mirror, how), whole)):
        proxy: Sidecar = sidecar(config, state_dir=tmp_path / "state", ready=how != "its-name-is-gone" or turn != 1)
        if turn != 1:
            wait.until(lambda: proxy.stats()["replicas"][0]["state"] == "in_sync", "in sync", timeout=30)  # noqa: B023
        if turn == 2:
            assert_equal(primary, mirror)

        def written() -> bool:
            with proxy.conn() as conn:  # noqa: B023
                return conn.command("SET", f"turn:{turn}", "v") == b"+OK\r\n"  # noqa: B023

        wait.until(written, "a write")
        if turn != 1:
            wait.until(lambda: proxy.stats()["replicas"][0]["lag"] == 0, "the mirror has it")  # noqa: B023
        proxy.stop()
