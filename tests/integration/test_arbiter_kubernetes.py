"""A Lease as the arbiter, against a server that speaks the Kubernetes API."""

import asyncio
import shutil
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from redisha.group import kubernetes
from redisha.group.arbiter import ArbiterError, ConflictError, Record
from redisha.group.http import NoAnswerError, NotSentError
from redisha.group.kubernetes import KubernetesArbiter
from support import wait
from support.certificate import make_certificate
from support.lease_api import LeaseApi
from support.ports import free_port

Factory = Callable[..., KubernetesArbiter]

FIRST = Record(1, "a", ("a", "b"), 0)
SECOND = Record(2, "b", ("b",), 0)


@pytest.fixture
def api() -> Iterator[LeaseApi]:
    made = LeaseApi()
    yield made
    made.stop()


@pytest.fixture
async def arbiter(api: LeaseApi) -> AsyncIterator[Factory]:
    """``arbiter(**options)`` is one more client of the server."""
    made: list[KubernetesArbiter] = []

    def make(**options: Any) -> KubernetesArbiter:
        options = {"lease": "redisha", "namespace": "shop", "server": api.url, "timeout": 10.0} | options
        made.append(KubernetesArbiter(**options))
        return made[-1]

    yield make
    for each in made:
        await each.close()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def tls_api(certificate: Path) -> Iterator[LeaseApi]:
    made = LeaseApi(certificate / "both")
    yield made
    made.stop()


# --- the record -------------------------------------------------------------------------------------------------------


async def test_the_first_write_makes_the_lease(api: LeaseApi, arbiter: Factory) -> None:
    one = arbiter()
    assert await one.read() == (None, "")
    version = await one.write(FIRST, "")
    assert await arbiter().read() == (FIRST, version)
    assert api.leases["redisha"]["metadata"]["resourceVersion"] == version


async def test_a_change_after_a_change(api: LeaseApi, arbiter: Factory) -> None:
    one = arbiter()
    version = ""
    for beat in range(5):
        record = Record(1, "a", ("a", "b"), beat)
        before, version = version, await one.write(record, version)
        assert version != before
        assert await one.read() == (record, version)
    assert api.connections == 1


@pytest.mark.parametrize(
    "record",
    [
        Record(0, ""),
        Record(1, "a", ("b",)),
        Record(1 << 40, "a", ("a", "b", "c"), 1 << 60),
        Record(7, 'ä, 100%, "x"', ('ä, 100%, "x"', "%2C", " b ", "名\n"), 3),
    ],
    ids=["empty", "one", "great", "odd"],
)
async def test_a_record_comes_back_as_it_was(arbiter: Factory, record: Record) -> None:
    await arbiter().write(record, "")
    assert (await arbiter().read())[0] == record


async def test_kubectl_sees_who_leads(api: LeaseApi, arbiter: Factory) -> None:
    await arbiter(lease_seconds=1.2).write(Record(1 << 40, "a"), "")
    spec = api.leases["redisha"]["spec"]
    assert (spec["holderIdentity"], spec["leaseDurationSeconds"]) == ("a", 2)
    assert spec["leaseTransitions"] == (1 << 31) - 1
    age = datetime.now(UTC) - datetime.fromisoformat(spec["renewTime"])
    assert 0 <= age.total_seconds() < 60


async def test_what_others_wrote_into_the_lease_stays(api: LeaseApi, arbiter: Factory) -> None:
    version = await arbiter().write(FIRST, "")
    metadata = api.leases["redisha"]["metadata"]
    metadata["labels"] = {"app": "redis"}
    metadata["annotations"]["example.org/note"] = "ours"
    await arbiter().write(SECOND, version)
    metadata = api.leases["redisha"]["metadata"]
    assert metadata["labels"] == {"app": "redis"}
    assert metadata["annotations"]["example.org/note"] == "ours"
    assert (await arbiter().read())[0] == SECOND


async def test_a_lease_made_by_hand_is_an_empty_record(api: LeaseApi, arbiter: Factory) -> None:
    api.leases["redisha"] = {"kind": "Lease", "metadata": {"name": "redisha", "uid": "u", "resourceVersion": "7"}}
    one = arbiter()
    assert await one.read() == (None, "7")
    version = await one.write(FIRST, "7")
    assert await one.read() == (FIRST, version)


async def test_a_lease_of_somebody_else_is_left_alone(api: LeaseApi, arbiter: Factory) -> None:
    metadata = {"name": "redisha", "uid": "u", "resourceVersion": "7"}
    api.leases["redisha"] = {"kind": "Lease", "metadata": metadata, "spec": {"holderIdentity": "scheduler-1"}}
    with pytest.raises(ArbiterError, match=r"held by 'scheduler-1'.*name another"):
        await arbiter().read()
    with pytest.raises(ArbiterError, match=r"held by 'scheduler-1'"):
        await arbiter().write(FIRST, "7")


async def test_annotations_that_are_no_record(api: LeaseApi, arbiter: Factory) -> None:
    await arbiter().write(FIRST, "")
    api.leases["redisha"]["metadata"]["annotations"]["redisha/term"] = "many"
    with pytest.raises(ArbiterError, match=r"changed by hand"):
        await arbiter().read()


# --- conflicts --------------------------------------------------------------------------------------------------------


async def test_of_two_first_writes_one_wins(arbiter: Factory) -> None:
    one, other = arbiter(), arbiter()
    version = await one.write(FIRST, "")
    with pytest.raises(ConflictError):
        await other.write(SECOND, "")
    assert await other.read() == (FIRST, version)


async def test_of_two_changes_one_wins(arbiter: Factory) -> None:
    pair = arbiter(), arbiter()
    version = await pair[0].write(FIRST, "")
    for term in range(2, 12):
        records = [Record(term, leader) for leader in "ab"]
        results = await asyncio.gather(
            *(each.write(record, version) for each, record in zip(pair, records, strict=True)), return_exceptions=True
        )
        (loser,) = [place for place, result in enumerate(results) if isinstance(result, ConflictError)]
        (version,) = [result for result in results if isinstance(result, str)]
        assert await pair[loser].read() == (records[1 - loser], version)


async def test_a_lease_that_was_deleted_is_not_made_anew_by_a_change(api: LeaseApi, arbiter: Factory) -> None:
    one, other = arbiter(), arbiter()
    version = await one.write(FIRST, "")
    del api.leases["redisha"]
    with pytest.raises(ConflictError):
        await one.write(SECOND, version)
    with pytest.raises(ConflictError):
        await other.write(SECOND, version)
    assert api.leases == {}
    await other.write(SECOND, "")
    with pytest.raises(ConflictError):
        await one.write(FIRST, version)
    assert (await one.read())[0] == SECOND


# --- refusals ---------------------------------------------------------------------------------------------------------


async def test_the_token_is_read_anew_for_each_request(api: LeaseApi, arbiter: Factory, tmp_path: Path) -> None:
    file = tmp_path / "token"
    api.token = "first"
    file.write_text("first\n")
    one = arbiter(token_file=str(file))
    version = await one.write(FIRST, "")
    api.token = "second"
    with pytest.raises(ArbiterError, match=r"does not know the token.*get, create and update leases"):
        await one.write(SECOND, version)
    file.write_text("second\n")
    await one.write(SECOND, version)
    assert api.connections == 1
    file.write_text("two\nlines")
    with pytest.raises(NotSentError, match=r"characters"):
        await one.read()
    file.unlink()
    with pytest.raises(NotSentError, match=r"token .* cannot be read"):
        await one.read()


async def test_a_role_that_is_missing_is_named(api: LeaseApi, arbiter: Factory) -> None:
    one = arbiter()
    api.verbs = {"get"}
    with pytest.raises(ArbiterError, match=r"forbids it.*cannot create.*lease-rbac\.yaml") as caught:
        await one.write(FIRST, "")
    assert not isinstance(caught.value, NoAnswerError)
    assert api.leases == {}


async def test_a_namespace_that_is_missing(arbiter: Factory) -> None:
    one = arbiter(namespace="nowhere")
    assert await one.read() == (None, "")
    with pytest.raises(ArbiterError, match=r'namespaces "nowhere" not found.*is there such a namespace'):
        await one.write(FIRST, "")


@pytest.mark.parametrize("raw", [(404, "404 page not found"), (200, "<html>hello"), (200, "[1]"), (500, "{}")])
async def test_no_other_server_is_taken_for_an_empty_one(api: LeaseApi, arbiter: Factory, raw: tuple[int, str]) -> None:
    api.raw = raw
    with pytest.raises(ArbiterError, match=r"cannot be had"):
        await arbiter().read()


@pytest.mark.parametrize("raw", [(200, "<html>hello"), (500, "{}"), (504, '{"message": "took too long"}')])
async def test_an_answer_that_leaves_it_open(api: LeaseApi, arbiter: Factory, raw: tuple[int, str]) -> None:
    api.raw = raw
    with pytest.raises(NoAnswerError, match=r"it is not known whether"):
        await arbiter().write(FIRST, "")


@pytest.mark.parametrize("raw", [(422, '{"message": "invalid"}'), (429, "slow down"), (404, "404 page not found")])
async def test_an_answer_that_leaves_nothing_open(api: LeaseApi, arbiter: Factory, raw: tuple[int, str]) -> None:
    api.raw = raw
    with pytest.raises(ArbiterError, match=r"cannot be had") as caught:
        await arbiter().write(FIRST, "")
    assert not isinstance(caught.value, NoAnswerError | ConflictError)


# --- the way there ----------------------------------------------------------------------------------------------------


async def test_nobody_listens(arbiter: Factory) -> None:
    one = arbiter(server=f"http://127.0.0.1:{free_port()}")
    for _ in range(2):
        with pytest.raises(NotSentError, match=r"cannot be reached: Connection refused"):
            await one.write(FIRST, "")


@pytest.mark.parametrize(
    "server", ["ftp://127.0.0.1", "https://", "http://127.0.0.1:0", "http://a:99999", "http://u@a"]
)
def test_no_address_of_a_server(server: str) -> None:
    with pytest.raises(ArbiterError, match=r"is no address of a server"):
        KubernetesArbiter("redisha", "shop", server)


async def test_a_kept_connection_that_the_server_closed_is_made_again(api: LeaseApi, arbiter: Factory) -> None:
    one = arbiter()
    version = await one.write(FIRST, "")
    api.cut()
    wait.until(lambda: api.open == 0, "the server has closed the connection")
    version = await one.write(SECOND, version)
    assert await one.read() == (SECOND, version)
    assert api.connections == 2


async def test_a_change_whose_answer_is_lost_is_not_sent_again(api: LeaseApi, arbiter: Factory) -> None:
    one = arbiter()
    version = await one.write(FIRST, "")
    for record in (SECOND, FIRST):
        api.log.clear()
        api.drop()
        with pytest.raises(NoAnswerError, match=r"it is not known whether PUT .* was carried out"):
            await one.write(record, version)
        assert len(api.log) == 1
        found, version = await one.read()
        assert found == record


async def test_a_read_whose_answer_is_lost_is_sent_again_once(api: LeaseApi, arbiter: Factory) -> None:
    one = arbiter()
    version = await one.write(FIRST, "")
    api.drop()
    assert await one.read() == (FIRST, version)
    api.drop(2)
    with pytest.raises(NoAnswerError, match=r"GET .* is not answered"):
        await one.read()


async def test_a_server_that_is_too_slow(api: LeaseApi, arbiter: Factory) -> None:
    one = arbiter(timeout=0.3)
    version = await arbiter().write(FIRST, "")
    assert await one.read() == (FIRST, version)
    api.stall()
    start = time.monotonic()
    with pytest.raises(NoAnswerError, match=r"it is not known whether PUT .*: "):
        await one.write(SECOND, version)
    with pytest.raises(NoAnswerError, match=r"is not answered"):
        await one.read()
    assert 0.55 < time.monotonic() - start < 3
    api.flow()
    # What was given up may still be carried out.
    async with asyncio.timeout(10):
        while await arbiter().read() == (FIRST, version):
            pass
    assert (await arbiter().read())[0] == SECOND


async def test_a_name_that_takes_long_to_look_up(
    api: LeaseApi, arbiter: Factory, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = arbiter(timeout=0.4)
    answer, real = threading.Event(), socket.getaddrinfo

    def slowly(*args: Any, **options: Any) -> Any:
        answer.wait(30)
        return real(*args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", slowly)
    start = time.monotonic()
    try:
        with pytest.raises(NotSentError, match=r"cannot be reached: no answer within"):
            await one.write(FIRST, "")
        with pytest.raises(NotSentError, match=r"has not answered an earlier request"):
            await one.write(FIRST, "")
        assert time.monotonic() - start < 3
    finally:
        answer.set()
    version = ""
    async with asyncio.timeout(10):
        while not version:
            try:
                version = await one.write(FIRST, "")
            except NotSentError:
                continue
    # What was given up was not sent late.
    assert [each for each in api.log if each.startswith("POST")] == api.log[:1]


async def test_whoever_waits_may_be_cancelled(api: LeaseApi, arbiter: Factory) -> None:
    one = arbiter()
    version = await one.write(FIRST, "")
    api.stall()
    writing = asyncio.create_task(one.write(SECOND, version))
    async with asyncio.timeout(10):
        while len(api.log) < 2:  # noqa: ASYNC110 - the server's thread has no event of ours
            await asyncio.sleep(0.005)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    api.flow()
    assert (await one.read())[0] in (FIRST, SECOND)


# --- TLS, and a pod ---------------------------------------------------------------------------------------------------


async def test_tls(tls_api: LeaseApi, arbiter: Factory, certificate: Path) -> None:
    one = arbiter(server=tls_api.url, ca_file=str(certificate / "ca.crt"), timeout=1.0)
    version = await one.write(FIRST, "")
    version = await one.write(SECOND, version)
    assert await one.read() == (SECOND, version)
    assert tls_api.connections == 1
    tls_api.stall()
    with pytest.raises(NoAnswerError, match=r"it is not known whether PUT"):
        await one.write(FIRST, version)
    tls_api.flow()
    assert (await one.read())[0] in (FIRST, SECOND)


async def test_a_certificate_that_is_not_trusted(tls_api: LeaseApi, arbiter: Factory, tmp_path: Path) -> None:
    with pytest.raises(NotSentError, match=r"not trusted: self.signed certificate; name the file"):
        await arbiter(server=tls_api.url).read()
    with pytest.raises(NotSentError, match=r"CA file .* cannot be used: No such file"):
        await arbiter(server=tls_api.url, ca_file=str(tmp_path / "none")).read()
    assert tls_api.log == []


async def test_in_a_pod_all_is_known(
    tls_api: LeaseApi, arbiter: Factory, certificate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(certificate / "ca.crt", tmp_path)
    (tmp_path / "token").write_text("secret")
    (tmp_path / "namespace").write_text("shop")
    tls_api.token = "secret"
    monkeypatch.setattr(kubernetes, "SERVICE_ACCOUNT", tmp_path)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(tls_api.port))
    one = arbiter(namespace=None, server=None)
    version = await one.write(FIRST, "")
    assert await one.read() == (FIRST, version)


def test_outside_of_a_pod_it_says_what_to_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(kubernetes, "SERVICE_ACCOUNT", tmp_path)
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(ArbiterError, match=r"name the API server"):
        KubernetesArbiter("redisha", "shop")
    with pytest.raises(ArbiterError, match=r"name the lease's namespace"):
        KubernetesArbiter("redisha", server="http://127.0.0.1:8001")
