"""A key in etcd as the arbiter, against a real etcd."""

import asyncio
import contextlib
import shutil
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from redisha.group.arbiter import ArbiterError, ConflictError, Record
from redisha.group.etcd import EtcdArbiter
from redisha.group.http import NoAnswerError, NotSentError
from support.certificate import make_certificate
from support.etcd_server import EtcdServer
from support.http_api import HttpApi
from support.ports import free_port
from support.relay import Direction

pytestmark = pytest.mark.skipif(
    shutil.which("etcd") is None, reason="there is no etcd on PATH (in Debian: apt-get install etcd-server)"
)

Factory = Callable[..., EtcdArbiter]

FIRST = Record(1, "a", ("a", "b"), 0)
SECOND = Record(2, "b", ("b",), 0)
USER = {"username": "root", "password": "secret"}


@contextlib.contextmanager
def _started(server: EtcdServer) -> Iterator[EtcdServer]:
    try:
        server.start()
        yield server
    finally:
        server.kill()


@pytest.fixture(scope="module")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdServer]:
    """An etcd that lets everybody in; each test has a key of its own in it."""
    with _started(EtcdServer(tmp_path_factory.mktemp("etcd"))) as server:
        yield server


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdServer]:
    """An etcd with the users ``root`` and ``poor``."""
    with _started(EtcdServer(tmp_path_factory.mktemp("guarded"))) as server:
        server.demand_users(root="secret", poor="secret")
        yield server


@pytest.fixture
def other_server() -> Iterator[HttpApi]:
    """Something else that answers."""
    made = HttpApi()
    yield made
    made.stop()


@pytest.fixture
def key(request: pytest.FixtureRequest) -> str:
    return f"/redisha/{request.node.name}"


@pytest.fixture
async def arbiter(key: str) -> AsyncIterator[Factory]:
    """``arbiter(*endpoints, **options)`` is one more client."""
    made: list[EtcdArbiter] = []

    def make(*endpoints: str, **options: Any) -> EtcdArbiter:
        made.append(EtcdArbiter(endpoints, key, **({"timeout": 10.0} | options)))
        return made[-1]

    yield make
    for each in made:
        await each.close()


@pytest.fixture
def black_hole() -> Iterator[str]:
    """An address that answers no attempt to connect."""
    with contextlib.ExitStack() as cleanup:
        server = cleanup.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            waiting = cleanup.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(server.getsockname())
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


# --- the record -------------------------------------------------------------------------------------------------------


async def test_the_first_write_makes_the_key(etcd: EtcdServer, arbiter: Factory) -> None:
    one = arbiter(f"127.0.0.1:{etcd.port}")
    assert await one.read() == (None, "")
    version = await one.write(FIRST, "")
    assert await arbiter(etcd.url).read() == (FIRST, version)


async def test_a_change_after_a_change(etcd: EtcdServer, arbiter: Factory, relay) -> None:
    between = relay(etcd.port)
    one = arbiter(f"http://{between.address}")
    version = ""
    for beat in range(5):
        record = Record(1, "a", ("a", "b"), beat)
        before, version = version, await one.write(record, version)
        assert version != before
        assert await one.read() == (record, version)
    assert between.accepted == 1


@pytest.mark.parametrize(
    "record",
    [
        Record(0, ""),
        Record(1, "a", ("b",)),
        Record(1 << 40, "a", ("a", "b", "c"), 1 << 60),
        Record(7, 'ä, 100%, "x"', ('ä, 100%, "x"', "%2C", " b ", "名\n", ""), 3),
    ],
    ids=["empty", "one", "great", "odd"],
)
async def test_a_record_comes_back_as_it_was(etcd: EtcdServer, arbiter: Factory, record: Record) -> None:
    await arbiter(etcd.url).write(record, "")
    assert (await arbiter(etcd.url).read())[0] == record


@pytest.mark.parametrize("value", ["", "x", "[]", '{"term": 1}', '{"term": "x", "leader": "a"}'], ids=range(5))
async def test_a_key_of_somebody_else_is_left_alone(etcd: EtcdServer, arbiter: Factory, key: str, value: str) -> None:
    etcd.put(key, value)
    with pytest.raises(ArbiterError, match="name another key"):
        await arbiter(etcd.url).read()


# --- conflicts --------------------------------------------------------------------------------------------------------


async def test_of_two_first_writes_one_wins(etcd: EtcdServer, arbiter: Factory) -> None:
    one, other = arbiter(etcd.url), arbiter(etcd.url)
    version = await one.write(FIRST, "")
    with pytest.raises(ConflictError):
        await other.write(SECOND, "")
    assert await other.read() == (FIRST, version)


async def test_of_two_changes_one_wins(etcd: EtcdServer, arbiter: Factory) -> None:
    pair = arbiter(etcd.url), arbiter(etcd.url)
    version = await pair[0].write(FIRST, "")
    for term in range(2, 12):
        records = [Record(term, leader) for leader in "ab"]
        results = await asyncio.gather(
            *(each.write(record, version) for each, record in zip(pair, records, strict=True)), return_exceptions=True
        )
        (loser,) = [place for place, result in enumerate(results) if isinstance(result, ConflictError)]
        (version,) = [result for result in results if isinstance(result, str)]
        assert await pair[loser].read() == (records[1 - loser], version)


async def test_a_key_that_was_deleted_is_not_made_anew_by_a_change(
    etcd: EtcdServer, arbiter: Factory, key: str
) -> None:
    one = arbiter(etcd.url)
    version = await one.write(FIRST, "")
    etcd.delete(key)
    with pytest.raises(ConflictError):
        await one.write(SECOND, version)
    assert await one.read() == (None, "")
    await one.write(SECOND, "")
    with pytest.raises(ConflictError):
        await one.write(FIRST, version)


# --- users ------------------------------------------------------------------------------------------------------------


async def test_a_user_with_a_password(guarded: EtcdServer, arbiter: Factory) -> None:
    one = arbiter(guarded.url, **USER)
    version = await one.write(FIRST, "")
    assert await one.read() == (FIRST, version)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "only for users .*user name is empty.*; name one"),
        ({"username": "root", "password": "wrong"}, "does not let the user 'root' in: .*invalid user ID or password"),
        ({"username": "nobody", "password": "secret"}, "does not let the user 'nobody' in"),
        ({"username": "poor", "password": "secret"}, "not for the user 'poor'.*grant-permission ROLE readwrite"),
    ],
    ids=["nobody", "password", "user", "permission"],
)
async def test_who_is_not_let_in(guarded: EtcdServer, arbiter: Factory, options: dict[str, str], message: str) -> None:
    one = arbiter(guarded.url, **options)
    for attempt in (one.read(), one.write(FIRST, "")):
        with pytest.raises(ArbiterError, match=message) as caught:
            await attempt
        assert not isinstance(caught.value, NoAnswerError)


async def test_a_password_where_etcd_has_no_users(etcd: EtcdServer, arbiter: Factory) -> None:
    with pytest.raises(ArbiterError, match="authentication is not enabled"):
        await arbiter(etcd.url, **USER).read()


async def test_a_token_that_etcd_forgot_is_replaced(guarded: EtcdServer, arbiter: Factory) -> None:
    one = arbiter(guarded.url, **USER)
    version = await one.write(FIRST, "")
    guarded.restart()
    version = await one.write(SECOND, version)
    guarded.restart()
    assert await one.read() == (SECOND, version)


async def test_a_token_from_before_users_were_changed_is_replaced(arbiter: Factory, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("k" * 32)
    # Tokens of this kind hold the revision of the users' list.
    kind = f"jwt,priv-key={tmp_path / 'key'},sign-method=HS256,ttl=5m"
    with _started(EtcdServer(tmp_path / "etcd", auth_token=kind)) as server:
        server.demand_users(root="secret")
        one = arbiter(server.url, **USER)
        version = await one.write(FIRST, "")
        for name in ("b", "c"):
            token = server.ask("auth/authenticate", name="root", password="secret")["token"]
            server.ask("auth/user/add", token, name=name, password="secret")
            version = await one.write(SECOND, version)
        assert await one.read() == (SECOND, version)


# --- the way there ----------------------------------------------------------------------------------------------------


async def test_nobody_listens(arbiter: Factory) -> None:
    one = arbiter(*(f"http://127.0.0.1:{free_port()}" for _ in range(2)))
    with pytest.raises(ArbiterError, match=r"Connection refused; .*Connection refused"):
        await one.read()
    with pytest.raises(NotSentError, match=r"Connection refused; .*Connection refused"):
        await one.write(FIRST, "")


@pytest.mark.parametrize("endpoints", [[], ["ftp://a"], ["http://a", "b:x"]])
def test_no_endpoint(endpoints: list[str]) -> None:
    with pytest.raises(ArbiterError, match=r"no endpoint|no address"):
        EtcdArbiter(endpoints, "key")


async def test_the_next_endpoint_is_tried_and_kept(etcd: EtcdServer, arbiter: Factory, relay) -> None:
    first, second = relay(etcd.port), relay(etcd.port)
    first.stop()
    one = arbiter(f"http://{first.address}", f"http://{second.address}")
    version = await one.write(FIRST, "")
    assert await one.read() == (FIRST, version)
    assert second.accepted == 1


@pytest.mark.parametrize("writes", [True, False])
async def test_an_endpoint_that_is_not_there_leaves_time_for_the_next(
    etcd: EtcdServer, arbiter: Factory, black_hole: str, writes: bool
) -> None:
    one = arbiter(black_hole, etcd.url, timeout=2.0)
    start = time.monotonic()
    if writes:
        await one.write(FIRST, "")
    else:
        assert await one.read() == (None, "")
    assert 0.9 < time.monotonic() - start < 2.0


async def test_a_read_goes_on_to_the_next_endpoint(
    etcd: EtcdServer, arbiter: Factory, relay, other_server: HttpApi
) -> None:
    version = await arbiter(etcd.url).write(FIRST, "")
    stalled = relay(etcd.port)
    stalled.stall(Direction.DOWN)
    other_server.raw = (503, '{"error": "etcdserver: no leader", "code": 14}')
    one = arbiter(f"http://{stalled.address}", other_server.url, etcd.url, timeout=1.5)
    assert await one.read() == (FIRST, version)


async def test_a_change_whose_answer_is_lost_is_not_sent_again(etcd: EtcdServer, arbiter: Factory, relay) -> None:
    between, second = relay(etcd.port), relay(etcd.port)
    one = arbiter(f"http://{between.address}", f"http://{second.address}")
    version = await one.write(FIRST, "")
    between.close_after(1, b"/v3/kv/txn")
    with pytest.raises(NoAnswerError, match="it is not known whether POST"):
        await one.write(SECOND, version)
    between.wait_closed()
    assert second.accepted == 0
    found, after = await one.read()
    assert (found, int(after)) == (SECOND, int(version) + 1)


async def test_an_etcd_that_is_too_slow(etcd: EtcdServer, arbiter: Factory, relay) -> None:
    between = relay(etcd.port)
    one = arbiter(f"http://{between.address}", timeout=0.3)
    version = await arbiter(etcd.url).write(FIRST, "")
    between.stall(Direction.DOWN)
    start = time.monotonic()
    with pytest.raises(NoAnswerError, match="it is not known whether POST"):
        await one.write(SECOND, version)
    with pytest.raises(ArbiterError, match="is not answered"):
        await one.read()
    assert 0.55 < time.monotonic() - start < 3
    between.cut()
    between.flow(Direction.DOWN)
    assert (await arbiter(f"http://{between.address}").read())[0] == SECOND


@pytest.mark.parametrize("raw", [(200, "hello"), (500, "{}"), (503, '{"error": "etcdserver: request timed out"}')])
async def test_an_answer_that_leaves_it_open(other_server: HttpApi, arbiter: Factory, raw: tuple[int, str]) -> None:
    other_server.raw = raw
    with pytest.raises(NoAnswerError, match="it is not known whether"):
        await arbiter(other_server.url).write(FIRST, "")


async def test_no_other_server_is_taken_for_an_empty_one(other_server: HttpApi, arbiter: Factory) -> None:
    one = arbiter(other_server.url)
    other_server.raw = (404, "404 page not found")
    for attempt in (one.read(), one.write(FIRST, "")):
        with pytest.raises(ArbiterError, match="its gRPC gateway is off"):
            await attempt
    other_server.raw = (200, "{}")
    with pytest.raises(ArbiterError, match="cannot be had"):
        await one.read()


async def test_tls(arbiter: Factory, tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path)
    with _started(EtcdServer(tmp_path / "etcd", certificate)) as server:
        one = arbiter(server.url, ca_file=str(certificate / "ca.crt"))
        version = await one.write(FIRST, "")
        assert await one.read() == (FIRST, version)
        with pytest.raises(ArbiterError, match="not trusted"):
            await arbiter(server.url).read()
