"""Mirrors and primaries that cannot do what a resync needs: healed another way, or shown with what to change.

Never called in sync with something missing, and never the clients' business.
"""

from pathlib import Path
from typing import Any

import pytest

from support.crowd import Crowd
from support.equality import assert_same, contents
from support.ports import free_port
from support.redis_server import RedisServer
from support.stage import AOF, Replica, Stage, config, is_whole, restarted


def _without(tmp_path: Path, *commands: str) -> dict[str, str]:
    """Options of a server on which these commands do not exist."""
    file = tmp_path / f"without-{'-'.join(commands)}.conf"
    file.write_text("".join(f'rename-command {command} ""\n' for command in commands))
    return {"include": str(file)}


def _healed_or_shown(scene: Stage, *words: str) -> Replica:
    """Wait until the mirror is whole, or its state says with one of these words why it is not."""

    def decided(now: Replica) -> bool:
        shown = now["state"] not in ("in_sync", "connecting") and any(word in now["reason"] for word in words)
        return is_whole(now) or shown

    return scene.until(decided, f"healed, or the reason has one of {words}")


def _assert_honest(scene: Stage, seed: int, *words: str) -> None:
    """Under load and after it: whole and equal, or shown with one of these words; the clients are served."""
    with Crowd(scene.proxy.port, seed=seed, writers=2, wild=0) as crowd:
        crowd.acknowledges(300)
    crowd.assert_kept(scene.primary)
    crowd.assert_undisturbed()
    if is_whole(_healed_or_shown(scene, *words)):
        assert_same(scene.primary, scene.mirror)
    else:
        assert scene.replica()["state"] != "in_sync"


def test_mirror_is_a_replica(stage, redis_server) -> None:
    """A mirror that takes its data from another server is none; when it is a master it is filled."""
    master = redis_server()
    scene = stage(start=False)
    scene.mirror.cli("REPLICAOF", master.host, master.port)
    scene.proxy.start()
    scene.until(lambda now: now["state"] not in ("in_sync", "connecting") and _says_replica(now), "it is shown")
    assert master.cli("DBSIZE") == 0
    scene.mirror.cli("REPLICAOF", "NO", "ONE")
    scene.until_whole()
    scene.assert_healed()


def _says_replica(now: Replica) -> bool:
    return any(word in now["reason"] for word in ("READONLY", "replica", "REPLICAOF"))


def test_mirror_is_a_cluster_node(stage) -> None:
    """A node of a Redis Cluster takes only some keys and one database: shown, with the reason."""
    scene = stage(mirror={"cluster_enabled": "yes", "cluster_port": str(free_port())}, ready=False)
    now = scene.until(lambda now: now["state"] not in ("in_sync", "connecting") and now["reason"] != "", "it is shown")
    assert "cluster" in now["reason"].lower()
    with scene.proxy.conn() as conn:
        assert conn.command("SET", "k", 1) == b"+OK\r\n"
    scene.until(lambda now: now["state"] != "in_sync" and "cluster" in now["reason"].lower(), "it is still shown")


def _sliced(cases: list[tuple[str, str]]) -> list[Any]:
    """The first two in each run, the others in ``make chaos``."""
    return [
        pytest.param(*case, id="-".join(case), marks=() if number < 2 else (pytest.mark.chaos,))
        for number, case in enumerate(cases)
    ]


MISSING = [
    ("primary", "DUMP"),
    ("mirror", "RESTORE"),
    ("mirror", "DUMP"),
    ("mirror", "SCAN"),
    ("primary", "SCAN"),
    ("primary", "CONFIG"),
    ("mirror", "CONFIG"),
]


@pytest.mark.parametrize(("where", "command"), _sliced(MISSING))
def test_renamed_command(stage, tmp_path: Path, where: str, command: str, seed: int) -> None:
    """The server of a cautious operator."""
    scene = stage(**{where: _without(tmp_path, command)}, ready=False)
    _assert_honest(scene, seed, command, "unknown command")


@pytest.mark.parametrize(
    "where", [pytest.param("primary", marks=pytest.mark.chaos), pytest.param("mirror", marks=pytest.mark.chaos), "both"]
)
def test_functions_are_renamed(stage, tmp_path: Path, where: str, seed: int) -> None:
    """No functions, no function library to mark the data with: a key does as well, and the rest is as ever."""
    scene = _without_functions(stage, tmp_path, where)
    with Crowd(scene.proxy.port, seed=seed, writers=2, functions=False) as crowd:
        crowd.acknowledges(200)
        with scene.healing("buckets", noticed=restarted):
            scene.mirror.kill()
            crowd.acknowledges(200)
            scene.mirror.start()
    scene.assert_healed(crowd)
    crowd.assert_undisturbed()


@pytest.mark.xfail(strict=True, reason="a marker that cannot be a library is a key that clients of that database see")
def test_a_marker_that_is_a_key_is_hidden(stage, tmp_path: Path) -> None:
    scene = _without_functions(stage, tmp_path, "both")
    replies = _ask(scene, ("SELECT", 15), ("DBSIZE",), ("KEYS", "*"), ("EXISTS", "redisha:markers"))
    assert replies == [b"+OK\r\n", b":0\r\n", b"*0\r\n", b":0\r\n"]


def _without_functions(stage, tmp_path: Path, where: str) -> Stage:
    options = {each: _without(tmp_path, "FUNCTION") for each in ("primary", "mirror") if where in (each, "both")}
    return stage(**options | {"mirror": options.get("mirror", {}) | AOF})


def _ask(scene: Stage, *commands: tuple[Any, ...]) -> list[bytes]:
    with scene.proxy.conn() as conn:
        return conn.pipeline(*commands)


RIGHTS = [
    ("mirror", "restore"),
    ("primary", "dump"),
    ("mirror", "function"),
    ("mirror", "scan"),
    ("mirror", "client"),
    ("primary", "function"),
    ("primary", "scan"),
]


@pytest.mark.parametrize(("where", "command"), _sliced(RIGHTS))
def test_user_without_the_right(stage, where: str, command: str, seed: int) -> None:
    """An ACL user who may do everything but one thing."""
    auth = {"username": "redisha", "password": "secret"}
    scene = stage(start=False, **{f"{where}_auth": auth})
    server: RedisServer = getattr(scene, where)
    server.cli("ACL", "SETUSER", "redisha", "on", ">secret", "~*", "&*", "+@all", f"-{command}")
    scene.proxy.start()
    with Crowd(scene.proxy.port, seed=seed, writers=2, wild=0, functions=command != "function") as crowd:
        crowd.acknowledges(300)
    crowd.assert_kept(scene.primary)
    if is_whole(_healed_or_shown(scene, "NOPERM", command.upper(), command)):
        assert_same(scene.primary, scene.mirror)
    server.cli("ACL", "SETUSER", "redisha", "+@all")
    scene.until_whole()
    scene.assert_healed(crowd)


def test_same_server_twice(stage, relay, sidecar, tmp_path: Path) -> None:
    """A mirror that is the primary itself, on another port: the start ends with both names, and nothing was sent."""
    scene = stage(start=False)
    between = relay(scene.primary.port)
    before = contents(scene.primary)
    proxy = sidecar(config(scene.primary.address, between.address, tmp_path / "same-state"), ready=False)
    assert proxy.wait_exit() != 0
    last = proxy.log().splitlines()[-1]
    assert scene.primary.address in last
    assert between.address in last
    assert "Traceback" not in proxy.log()
    assert contents(scene.primary) == before
