"""Several workers behave like one: one order of writes, one set of clients, one set of numbers.

Each test says on which worker its connections are: what it shows does not depend on how the kernel spreads them.
"""

import contextlib
import signal
import threading
from collections.abc import Callable

import pytest

from support import configs, wait
from support.compare import assert_equal
from support.redis_server import RedisServer
from support.sidecar import Sidecar
from support.wire import ClosedError, Conn
from support.workers import conn_on, with_workers

CLIENTS = 8


@pytest.fixture
def primary(redis_server) -> RedisServer:
    """The Redis that clients are answered by."""
    return redis_server()


@pytest.fixture
def mirror(redis_server) -> RedisServer:
    """The Redis that must be its copy."""
    return redis_server()


@pytest.fixture(params=[2, 3])
def workers(request: pytest.FixtureRequest) -> int:
    """How many there are."""
    return int(request.param)


@pytest.fixture
def proxy(sidecar, primary: RedisServer, mirror: RedisServer, workers: int) -> Sidecar:
    """The sidecar between them."""
    return sidecar(with_workers(configs.mirrored(primary.address, mirror.address), workers))


@pytest.fixture
def plain(sidecar, primary: RedisServer) -> Sidecar:
    """A sidecar with two workers in front of one Redis."""
    return sidecar(with_workers(configs.pass_through(primary.address), 2))


def at_once(count: int, work: Callable[[int], None], meanwhile: Callable[[], None] = lambda: None) -> None:
    """Do it so many times in parallel, and something else here; what one of them raises is raised here."""
    failures: list[BaseException] = []

    def run(number: int) -> None:
        try:
            work(number)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    meanwhile()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    if failures:
        raise failures[0]


def test_every_number_is_handed_out_once(
    proxy: Sidecar, primary: RedisServer, mirror: RedisServer, workers: int
) -> None:
    """Clients of all workers increment one counter: each number comes once, in order for each of them."""
    numbers: list[list[int]] = [[] for _ in range(CLIENTS)]

    def count(number: int) -> None:
        with conn_on(proxy, number % workers, workers) as conn:
            for _ in range(40):
                replies = conn.pipeline(*[("INCR", "counter"), ("RPUSH", "list", number)] * 25)
                numbers[number] += [int(reply[1:]) for reply in replies[::2]]

    at_once(CLIENTS, count)
    assert sorted(number for own in numbers for number in own) == list(range(1, CLIENTS * 1000 + 1))
    assert all(own == sorted(own) for own in numbers)
    assert primary.cli("LLEN", "list") == CLIENTS * 1000
    assert assert_equal(primary, mirror) == 2


def test_replies_are_in_order_and_reads_see_their_writes(proxy: Sidecar, workers: int) -> None:
    """A deep pipeline of writes and reads, small and large, in several databases, on each worker."""
    large = b"x" * 100_000

    def talk(number: int) -> None:
        with conn_on(proxy, number % workers, workers) as conn:
            for turn in range(4):
                commands, expected = [], []
                for step in range(500):
                    value = large if step % 100 == 99 else b"%d:%d:%d" % (number, turn, step)
                    db = 1 + number % 3
                    commands += [("SELECT", db), ("SET", f"k{number}", value), ("GET", f"k{number}"), ("PING", step)]
                    expected += [b"+OK\r\n", b"+OK\r\n", b"$%d\r\n%b\r\n" % (len(value), value)]
                    expected += [b"$%d\r\n%d\r\n" % (len(str(step)), step)]
                assert conn.pipeline(*commands) == expected

    at_once(2 * workers, talk)


def test_transactions_and_watched_keys(proxy: Sidecar, primary: RedisServer, mirror: RedisServer, workers: int) -> None:
    """A transaction is whole, and what another worker's client writes makes a watched key stale."""
    with conn_on(proxy, 0, workers) as first, conn_on(proxy, workers - 1, workers) as last:
        for one, other in ((first, last), (last, first)):
            assert one.pipeline(("MULTI",), ("INCR", "n"), ("INCR", "n"), ("EXEC",))[-1].startswith(b"*2\r\n")
            assert one.command("WATCH", "w") == b"+OK\r\n"
            assert other.command("SET", "w", 1) == b"+OK\r\n"
            assert one.pipeline(("MULTI",), ("SET", "w", 2), ("EXEC",))[-1] == b"*-1\r\n"
            assert one.pipeline(("WATCH", "w"), ("MULTI",), ("SET", "w", 3), ("EXEC",))[-1] == b"*1\r\n+OK\r\n"
        assert one.command("GET", "n") == b"$1\r\n4\r\n"
    assert assert_equal(primary, mirror) == 2


def test_watched_counter_loses_nothing(proxy: Sidecar, workers: int) -> None:
    """Clients of all workers add to a number by WATCH, GET, MULTI, SET, EXEC: what EXEC acknowledged counts."""

    def add(number: int) -> None:
        with conn_on(proxy, number % workers, workers) as conn:
            done = 0
            while done < 25:
                conn.command("WATCH", "n")
                value = conn.command("GET", "n")
                now = 0 if value == b"$-1\r\n" else int(value.split(b"\r\n")[1])
                done += conn.pipeline(("MULTI",), ("SET", "n", now + 1), ("EXEC",))[-1] != b"*-1\r\n"

    at_once(2 * workers, add)
    with proxy.conn() as conn:
        assert conn.command("GET", "n") == b"$%d\r\n%d\r\n" % (len(str(50 * workers)), 50 * workers)


def blocks(proxy: Sidecar, count: int) -> bool:
    """Whether so many clients block."""
    with proxy.conn() as conn:
        return conn.command("CLIENT", "LIST").count(b" flags=b ") == count


def test_who_blocks_is_served_by_another_worker(
    proxy: Sidecar, primary: RedisServer, mirror: RedisServer, workers: int
) -> None:
    """Whoever waited longest gets the element, wherever it was pushed; who hangs up takes none."""
    waiting = []
    for number in range(workers + 1):
        conn = conn_on(proxy, number % workers, workers)
        conn.send_command("BLPOP", "q", 0)
        wait.until(lambda count=number + 1: blocks(proxy, count), "it blocks")
        waiting.append(conn)
    gone = waiting.pop(1)
    gone.close()
    wait.until(lambda: blocks(proxy, workers), "who hung up does not block")
    with conn_on(proxy, 1, workers) as pusher:
        for element, conn in enumerate(waiting):
            assert pusher.command("RPUSH", "q", element) == b":1\r\n"
            assert conn.reply() == b"*2\r\n$1\r\nq\r\n$1\r\n%d\r\n" % element
            conn.close()
        assert pusher.command("LLEN", "q") == b":0\r\n"
    assert assert_equal(primary, mirror) == 0


def test_messages_go_to_subscribers_of_all_workers(proxy: Sidecar, workers: int) -> None:
    """Each subscriber gets each message once."""
    subscribers = [conn_on(proxy, number, workers) for number in range(workers)]
    for conn in subscribers:
        assert conn.command("SUBSCRIBE", "news").startswith(b"*3\r\n$9\r\nsubscribe\r\n")
    for number in range(workers):
        with conn_on(proxy, number, workers) as publisher:
            assert publisher.command("PUBLISH", "news", number) == b":%d\r\n" % workers
    for conn in subscribers:
        for number in range(workers):
            assert conn.reply() == b"*3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$1\r\n%d\r\n" % number
        assert conn.silent_for(0.05)
        conn.close()


def test_wait_counts_the_mirror(proxy: Sidecar, workers: int) -> None:
    """WAIT behind a write on each worker: the mirror has it."""
    for number in range(workers):
        with conn_on(proxy, number, workers) as conn:
            assert conn.pipeline(("SET", "k", number), ("WAIT", 1, 5000)) == [b"+OK\r\n", b":1\r\n"]


def client_id(conn: Conn) -> bytes:
    """Its number."""
    return conn.command("CLIENT", "ID")[1:-2]


def test_clients_of_all_workers_are_listed_and_handled(proxy: Sidecar, workers: int) -> None:
    """CLIENT LIST, KILL, UNBLOCK and PAUSE reach every client; the links between workers are not to be seen."""
    conns = [conn_on(proxy, number, workers) for number in range(workers)]
    me, other = conns[0], conns[-1]
    ids = [client_id(conn) for conn in conns]
    assert len(set(ids)) == workers
    other.command("CLIENT", "SETNAME", "other")
    other.command("INCR", "n")
    for conn in conns:
        listed = conn.command("CLIENT", "LIST")
        assert listed.count(b"id=") == workers
        assert all(b"id=%b " % number in listed for number in ids)
        assert b" name=other " in listed
    assert me.command("CLIENT", "LIST", "ID", ids[-1]).count(b"id=") == 1
    other.send_command("BLPOP", "none", 0)
    wait.until(lambda: blocks(proxy, 1), "it blocks")
    assert me.command("CLIENT", "UNBLOCK", ids[-1], "ERROR") == b":1\r\n"
    assert other.reply().startswith(b"-UNBLOCKED ")
    assert me.command("CLIENT", "UNBLOCK", ids[-1]) == b":0\r\n"
    assert me.command("CLIENT", "PAUSE", 60_000) == b"+OK\r\n"
    other.send_command("INCR", "n")
    assert other.silent_for(0.1)
    assert me.command("CLIENT", "UNPAUSE") == b"+OK\r\n"
    assert other.reply() == b":2\r\n"
    assert me.command("CLIENT", "KILL", "ID", ids[-1]) == b":1\r\n"
    assert other.until_closed() == b""
    assert me.command("CLIENT", "KILL", "127.0.0.1:1") == b"-ERR No such client\r\n"
    assert me.command("CLIENT", "KILL", "TYPE", "normal") == b":%d\r\n" % (workers - 2)
    assert me.command("CLIENT", "LIST").count(b"id=") == 1
    for conn in conns:
        conn.close()


def test_bound_of_clients_is_of_the_process(sidecar, primary: RedisServer, mirror: RedisServer) -> None:
    """``max_clients`` counts the clients of all workers, and not the links between them."""
    config = with_workers(configs.mirrored(primary.address, mirror.address), 2) | {"limits": {"max_clients": 6}}
    proxy = sidecar(config)
    conns = [proxy.conn() for _ in range(6)]
    assert [conn.command("INCR", "n") for conn in conns] == [b":%d\r\n" % n for n in range(1, 7)]
    with proxy.conn() as more:
        assert more.until_closed() == b"-ERR max number of clients reached\r\n"
    conns.pop().close()
    wait.until(lambda: listener(proxy)["downstream_cx_active"] == 5, "one has gone")
    with proxy.conn() as more:
        assert more.command("INCR", "n") == b":7\r\n"
    for conn in conns:
        conn.close()


def listener(proxy: Sidecar) -> dict[str, int]:
    """The counters of the only listener."""
    [found] = proxy.stats()["listeners"]
    return found


def endpoint(proxy: Sidecar, cluster: str = "redis-001") -> dict[str, int]:
    """The counters of a cluster's only endpoint."""
    [found] = [each for each in proxy.stats()["endpoints"] if each["cluster"] == cluster]
    return found


def test_statistics_add_up(proxy: Sidecar, workers: int) -> None:
    """Every command is counted once: at its listener, by its name, and at the Redis that executed it."""

    def send(number: int) -> None:
        with conn_on(proxy, number % workers, workers) as conn:
            for _ in range(10):
                conn.pipeline(*[("SET", f"k{number}", 1)] * 30, *[("GET", f"k{number}")] * 20)

    before = endpoint(proxy)["upstream_rq_total"]
    at_once(CLIENTS, send)
    stats = proxy.stats()
    counted = {each["name"]: each["total"] for each in stats["commands"]}
    assert (counted["set"], counted["get"]) == (CLIENTS * 300, CLIENTS * 200)
    [one] = stats["listeners"]
    assert one["downstream_rq_total"] == sum(counted.values())
    assert one["downstream_rq_active"] == 0
    assert one["downstream_rq_time_us"]["count"] >= CLIENTS * 500
    assert {each["cluster"] for each in stats["endpoints"]} == {"redis-001", "redis-002"}
    assert endpoint(proxy)["upstream_rq_total"] - before == CLIENTS * 500
    [replica] = stats["replicas"]
    assert replica["lost_total"] == 0


def test_errors_are_the_firsts_own_words(
    proxy: Sidecar, primary: RedisServer, mirror: RedisServer, workers: int
) -> None:
    """``kill -9`` of the primary under load: each reply comes, and an error names the cluster; then it goes on."""
    stop = threading.Event()
    errors: set[bytes] = set()
    acknowledged = [0] * workers

    def load(number: int) -> None:
        with conn_on(proxy, number, workers) as conn:
            while not stop.is_set():
                for reply in conn.pipeline(*[("INCR", f"n{number}")] * 20):
                    if reply.startswith(b":"):
                        acknowledged[number] += 1
                    else:
                        errors.add(reply)

    def trouble() -> None:
        wait.until(lambda: min(acknowledged) > 100, "all are served")
        primary.kill()
        wait.until(lambda: errors, "clients are told")
        primary.start()
        stop.set()

    at_once(workers, load, meanwhile=trouble)
    known = (b"-UNAVAILABLE cluster redis-001: ", b"-INDOUBT cluster redis-001: ", b"-TIMEOUT cluster redis-001: ")
    assert errors, "nobody noticed"
    assert all(error.startswith(known) and b"worker" not in error for error in errors), errors
    for number in range(workers):
        with conn_on(proxy, number, workers) as conn:
            wait.until(lambda conn=conn: conn.command("SET", "k", 1) == b"+OK\r\n", "it works again", 20)
    assert assert_equal(primary, mirror) >= 1


def test_time_limit_is_told_as_by_one_worker(sidecar, primary: RedisServer, mirror: RedisServer) -> None:
    """A Redis that hangs: the error comes after ``op_timeout`` and names it, on either worker; the link stays."""
    config = configs.mirrored(primary.address, mirror.address, op_timeout="400ms")
    proxy = sidecar(with_workers(config, 2))
    with conn_on(proxy, 0, 2) as first, conn_on(proxy, 1, 2) as second:
        assert first.command("SET", "k", 0) == second.command("SET", "k", 0) == b"+OK\r\n"
        primary.pause()
        try:
            for conn in (first, second):
                conn.send_command("INCR", "k")
            replies = [conn.reply(timeout=1.2) for conn in (first, second)]
        finally:
            primary.resume()
        assert all(reply.startswith(b"-INDOUBT cluster redis-001: ") for reply in replies)
        assert all(b"(400 ms)" in reply for reply in replies), replies
        wait.until(lambda: second.command("GET", "k") == b"$1\r\n2\r\n", "both were applied")


def test_reload_changes_what_all_do(proxy: Sidecar, redis_server, primary: RedisServer, workers: int) -> None:
    """Mirrors go and come, connections stay; the number of workers is no matter of a reload."""
    third = redis_server()
    pass_through = configs.pass_through(primary.address)
    again = configs.mirrored(primary.address, third.address)
    conns = [conn_on(proxy, number, workers) for number in range(workers)]

    def increment() -> None:
        for conn in conns:
            assert conn.command("INCR", "n").startswith(b":")

    increment()
    for config in (pass_through, again):
        proxy.reload(with_workers(config, workers))
        for _ in range(5):
            increment()
    assert int(primary.cli("GET", "n")) == 11 * workers
    assert_equal(primary, third)
    proxy.file.write_text(proxy.file.read_text().replace(f"workers: {workers}", f"workers: {workers + 1}"))
    proxy.signal(signal.SIGHUP)
    wait.until(lambda: "a reload cannot change the number of workers" in proxy.log(), "it is told")
    increment()
    for conn in conns:
        conn.close()


def test_mirror_comes_and_goes_while_clients_block(sidecar, primary: RedisServer, mirror: RedisServer) -> None:
    """Who blocks at another worker asks again when a mirror comes, which hears of the pop; and waits when it goes."""
    bare = with_workers(configs.pass_through(primary.address), 2)
    mirrored = with_workers(configs.mirrored(primary.address, mirror.address), 2)
    proxy = sidecar(bare)
    with conn_on(proxy, 1, 2) as conn, conn_on(proxy, 0, 2) as other:
        conn.send_command("BLPOP", "q", 0)
        wait.until(lambda: blocks(proxy, 1), "it blocks")
        proxy.reload(mirrored)
        assert conn.reply().startswith(b"-UNBLOCKED ")
        conn.send_command("BLPOP", "q", 0)
        wait.until(lambda: blocks(proxy, 1), "it blocks")
        assert other.command("RPUSH", "q", "a", "b") == b":2\r\n"
        assert conn.reply() == b"*2\r\n$1\r\nq\r\n$1\r\na\r\n"
        wait.until(lambda: mirror.cli("LRANGE", "q", 0, -1) == [b"b"], "the mirror has what is left")
        conn.send_command("BLPOP", "r", 0)
        wait.until(lambda: blocks(proxy, 1), "it blocks")
        proxy.reload(bare)
        assert other.command("RPUSH", "r", "c") == b":1\r\n"
        assert conn.reply() == b"*2\r\n$1\r\nr\r\n$1\r\nc\r\n"


def test_drain_loses_no_reply(proxy: Sidecar, primary: RedisServer, mirror: RedisServer, workers: int) -> None:
    """SIGTERM under load: what a client was not answered was not executed, and the mirror has everything."""
    acknowledged = [0] * CLIENTS
    half = threading.Event()

    def load(number: int) -> None:
        with conn_on(proxy, number % workers, workers) as conn:
            try:
                while True:
                    for reply in conn.pipeline(*[("INCR", f"n{number}")] * 10):
                        acknowledged[number] = int(reply[1:])
                    if min(acknowledged) > 500:
                        half.set()
            except ClosedError as end:
                for reply in filter(None, end.rest.split(b"\r\n")):
                    acknowledged[number] = int(reply[1:])
            except OSError:
                pass  # written to a connection that had been closed

    def end() -> None:
        assert half.wait(20)
        proxy.signal(signal.SIGTERM)

    at_once(CLIENTS, load, meanwhile=end)
    assert proxy.wait_exit(10) == 0
    executed = [int(primary.cli("GET", f"n{number}")) for number in range(CLIENTS)]
    assert executed == acknowledged
    assert assert_equal(primary, mirror, within=0.5) == CLIENTS
    assert "0 sessions were closed at the limit" in proxy.log()


def test_pass_through_uses_all_workers(plain: Sidecar) -> None:
    """Without a mirror every worker has a connection of its own to the Redis, and nothing goes by way of the first."""
    with conn_on(plain, 0, 2) as first, conn_on(plain, 1, 2) as second:
        for step in range(100):
            assert first.command("SET", f"a{step}", step) == second.command("SET", f"b{step}", step) == b"+OK\r\n"
        assert endpoint(plain)["upstream_cx_active"] == 2
        # A version is told as the Redis's own, by either.
        assert first.command("HELLO").split(b"\r\n")[6] == second.command("HELLO").split(b"\r\n")[6] != b"6.2.0"


def test_different_mirrors_of_one_cluster_are_the_firsts(sidecar, primary: RedisServer, mirror: RedisServer) -> None:
    """What a link cannot tell apart is accepted by the first worker alone."""
    config = configs.mirrored(primary.address, mirror.address)
    config["listeners"][0]["routes"].append({"prefix": "local:", "cluster": "redis-001"})
    proxy = sidecar(with_workers(config, 2))
    conns = [proxy.conn() for _ in range(12)]
    assert {int(client_id(conn)) % 2 for conn in conns} == {1}
    assert conns[0].pipeline(("SET", "local:k", 1), ("SET", "k", 1)) == [b"+OK\r\n"] * 2
    wait.until(lambda: mirror.cli("EXISTS", "k") == 1, "it is mirrored")
    assert mirror.cli("EXISTS", "local:k") == 0
    for conn in conns:
        conn.close()


def test_taken_address_is_an_error(sidecar, plain: Sidecar, primary: RedisServer) -> None:
    """That workers share an address does not let another process in."""
    config = with_workers(configs.pass_through(primary.address), 2)
    config["listeners"][0]["bind"] = [f"127.0.0.1:{plain.port}"]
    other = sidecar(config, ready=False)
    assert other.wait_exit() == 3
    assert "cannot bind" in other.log()


def test_numbers_of_a_sample_are_those_of_all_workers(sidecar, primary: RedisServer, mirror: RedisServer) -> None:
    """Once they were the first worker's alone."""
    config = configs.mirrored(primary.address, mirror.address)
    config["listeners"][0]["routes"][0]["mirrors"][0]["fraction"] = 50
    proxy = sidecar(with_workers(config, 2))
    for worker in range(2):
        with conn_on(proxy, worker, 2) as conn:
            assert conn.pipeline(*[("SET", f"k:{number}", worker) for number in range(400)]) == [b"+OK\r\n"] * 400

    def agree() -> bool:
        [replica] = proxy.stats()["replicas"]
        sets = mirror.client().info("commandstats").get("cmdstat_set", {"calls": 0})["calls"]
        return replica["sent_total"] == replica["acked_total"] == sets > 200

    wait.until(agree, "the mirror has executed what was sent, as the numbers say")


def test_who_waits_at_a_link_does_not_wait_for_others(sidecar, primary: RedisServer, mirror: RedisServer) -> None:
    """Once each of them waited for op_timeout behind the other, and the later ones were in doubt."""
    proxy = sidecar(with_workers(configs.mirrored(primary.address, mirror.address, op_timeout="1s"), 2))
    with contextlib.ExitStack() as cleanup:
        conns = [cleanup.enter_context(conn_on(proxy, 1, 2)) for _ in range(CLIENTS)]
        for number, conn in enumerate(conns):
            assert conn.command("SET", f"k:{number}", 1) == b"+OK\r\n"
        wait.until(lambda: proxy.stats()["replicas"][0]["state"] == "in_sync", "the mirror is in sync")
        mirror.kill()
        primary.kill()
        primary.start()  # without its data: it is held, to be filled from the mirror
        wait.until(lambda: proxy.stats()["replicas"][0]["state"] == "down", "the mirror is away")
        wait.until(lambda: proxy.stats()["endpoints"][0]["state"] == "ready", "the primary is back")
        for number, conn in enumerate(conns):
            conn.send_command("INCR", f"k:{number}")
        assert all(conn.reply(timeout=5).startswith(b"-UNAVAILABLE ") for conn in conns)
