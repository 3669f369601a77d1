"""The state directory is missing, unusable, full or damaged: a warning, all counts as dirty, healed anyway."""

import random
import shutil
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.crowd import Crowd
from support.stage import AOF, Stage, always, restarted

HEADER = 4096
BITMAP = 131_072


def _file(root: Path) -> Path:
    path = root / "state"
    path.write_text("this is a file")
    return path


def _below_a_file(root: Path) -> Path:
    return _file(root) / "state"


def _in_proc(root: Path) -> Path:
    return Path("/proc/redisha-state")


UNUSABLE: dict[str, Callable[[Path], Path]] = {"a-file": _file, "below-a-file": _below_a_file, "no-rights": _in_proc}


@pytest.mark.parametrize("make", UNUSABLE.values(), ids=UNUSABLE.keys())
def test_unusable(stage, tmp_path: Path, make: Callable[[Path], Path]) -> None:
    """A folder that was asked for and cannot be used ends the start: the error names it and says what to do."""
    path = make(tmp_path)
    scene = stage(state=path, state_made=False, keys=0, start=False)
    _assert_refused(scene)


def _assert_refused(scene: Stage) -> None:
    scene.proxy.start(ready=False)
    assert scene.proxy.wait_exit() == 1
    log = scene.proxy.log()
    assert str(scene.state) in log or str(scene.state.parent) in log
    assert "folder" in log
    assert "Traceback" not in log


@pytest.mark.chaos
@pytest.mark.timeout(120)
def test_in_memory(stage, seed: int) -> None:
    """No folder at all, as asked for: healed all the same, by looking at everything where nothing is known."""
    scene = stage(state=Path("memory"), state_made=False, mirror=AOF)
    _heals(scene, seed, after_restart="full")


@pytest.fixture
def tmpfs(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """``tmpfs(options)`` mounts a small file system, where that is allowed."""
    mounted: list[Path] = []

    def mount(options: str) -> Path:
        path = tmp_path / f"tmpfs-{len(mounted)}"
        path.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"no tmpfs can be mounted here: {done.stderr.strip()}")
        mounted.append(path)
        return path

    yield mount
    for path in mounted:
        subprocess.run(["umount", "-l", str(path)], check=True)


@pytest.mark.timeout(120)
def test_disk_is_full(stage, tmpfs: Callable[[str], Path], seed: int) -> None:
    """No room for a map, which is allocated at once and not on the first fault: in memory, with a warning."""
    scene = stage(state=tmpfs("size=64k"), mirror=AOF)
    assert str(scene.state) in scene.proxy.log()
    _heals(scene, seed, after_restart="full")


def test_read_only_file_system(stage, tmpfs: Callable[[str], Path]) -> None:
    """It ends the start, as every folder that was asked for and cannot be used."""
    _assert_refused(stage(state=tmpfs("ro"), keys=0, start=False))


@pytest.mark.timeout(120)
def test_missing(stage, tmp_path: Path, seed: int) -> None:
    """It is made."""
    path = tmp_path / "not" / "there" / "yet"
    scene = stage(state=path, state_made=False, mirror=AOF)
    assert list(path.glob("*.map"))
    _heals(scene, seed, after_restart="buckets")


def _heals(scene: Stage, seed: int, after_restart: str) -> None:
    """The mirror is killed and comes back; the sidecar is killed and comes back."""
    with Crowd(scene.proxy.port, seed=seed, writers=2) as crowd:
        with scene.healing("buckets", noticed=restarted, name=" mirror"):
            scene.mirror.kill()
            crowd.acknowledges(200)
            scene.mirror.start()
        with scene.healing(after_restart, noticed=always, name=" sidecar"):
            scene.restart_proxy()
        crowd.acknowledges(100)
    scene.assert_healed(crowd)


def _truncate(file: Path) -> None:
    with file.open("r+b") as opened:
        opened.truncate(HEADER + BITMAP // 2)


def _empty(file: Path) -> None:
    file.write_bytes(b"")


def _random_header(file: Path) -> None:
    with file.open("r+b") as opened:
        opened.write(random.Random(1).randbytes(HEADER))


def _random_bytes(file: Path) -> None:
    file.write_bytes(random.Random(2).randbytes(HEADER + 2 * BITMAP))


def _other_version(file: Path) -> None:
    """Every four bytes at the beginning, one after the other, could be the version: all of them but the magic."""
    with file.open("r+b") as opened:
        opened.seek(8)
        opened.write(struct.pack("<I", 0xFFFF))


def _other_boot(file: Path) -> None:
    """The boot id is in the header, as text or as bytes."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    head = file.read_bytes()
    text, raw = boot.encode(), bytes.fromhex(boot.replace("-", ""))
    found = (
        text if text in head[:HEADER] else text.replace(b"-", b"") if text.replace(b"-", b"") in head[:HEADER] else raw
    )
    assert found in head[:HEADER], "the boot id is not in the header"
    file.write_bytes(head.replace(found, found[::-1], 1))


def _directory(file: Path) -> None:
    file.unlink()
    file.mkdir()


DAMAGES = {
    "truncated": _truncate,
    "empty": _empty,
    "random-header": _random_header,
    "random": _random_bytes,
    "other-version": _other_version,
    "other-boot": _other_boot,
    "a-directory": _directory,
}
_SLICE = ("random",)


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(damage, id=name, marks=() if name in _SLICE else (pytest.mark.chaos,))
        for name, damage in DAMAGES.items()
    ],
)
def test_damaged_map(stage, damage: Callable[[Path], None], seed: int) -> None:
    """What cannot be believed is not: a warning, and all is dirty."""
    scene = stage(mirror=AOF)
    with Crowd(scene.proxy.port, seed=seed, writers=2) as crowd:
        crowd.acknowledges(200)
        crowd.rest()
        scene.until_whole()
        [file] = scene.state.glob("*.map")
        assert file.stat().st_size == HEADER + 2 * BITMAP
        before = len(scene.proxy.log())

        def meanwhile() -> None:
            damage(file)
            # Written directly, so that only who looks at everything finds it.
            scene.mirror.cli("DEL", *[f"fill:{number}" for number in range(50)])

        with scene.healing("buckets", "full", noticed=always):
            scene.restart_proxy(meanwhile)
        crowd.go_on()
        crowd.acknowledges(100)
    assert "dirty map" in scene.proxy.log()[before:]
    scene.assert_healed(crowd)


@pytest.mark.chaos
@pytest.mark.timeout(120)
def test_map_of_another_stage(stage) -> None:
    """The map files of other servers, copied here, are not taken for ours."""
    one = stage(mirror=AOF)
    [file] = one.state.glob("*.map")
    kept = file.read_bytes()
    one.proxy.kill()
    shutil.rmtree(one.state)
    two = stage(mirror=AOF)
    [other] = two.state.glob("*.map")

    def exchange() -> None:
        other.write_bytes(kept)
        two.mirror.cli("DEL", "fill:1")

    with two.healing("buckets", "full", noticed=always):
        two.restart_proxy(exchange)
    two.assert_healed()
