"""A group of two as its clients and its operators see it: real Redis servers, real sidecars, nothing broken.

What breaks is in ``tests/chaos/test_group_*.py``.
"""

import json
import subprocess
import sys
import threading
import time
from typing import Any

import pytest

from support import every_type, wait
from support.equality import contents
from support.group_peer import FakePeer
from support.group_stage import Groups, GroupStage, Member
from support.ports import free_port
from support.wire import Conn


@pytest.fixture
def group(redis_server, sidecar, relay) -> Groups:
    """Makes groups of this test's own."""
    return Groups(redis_server, sidecar, relay)


@pytest.fixture(scope="module")
def shared(module_redis_server, module_sidecar) -> GroupStage:
    """One group for all tests that leave it as it was."""
    return Groups(module_redis_server, module_sidecar)()


@pytest.fixture(params=["leader", "follower"])
def member(request: pytest.FixtureRequest, shared: GroupStage) -> Member:
    """Either of the two; both Redis are empty."""
    leader, follower = shared.pair()
    assert leader.ask("FLUSHALL") == b"+OK\r\n"
    return leader if request.param == "leader" else follower


def _bulk(text: str | bytes) -> bytes:
    data = text.encode() if isinstance(text, str) else text
    return b"$%d\r\n%b\r\n" % (len(data), data)


# --- what clients see ---


def test_forms(shared: GroupStage) -> None:
    """Two members without data: one leads, the other follows and is in sync."""
    leader, follower = shared.pair()
    assert leader.info()["me"]["role"] == "leader"
    assert follower.info()["me"]["role"] == "follower"
    assert follower.info()["me"]["leader"] == leader.name
    assert leader.info()["me"]["term"] == follower.info()["me"]["term"] > 0
    for each in (leader, follower):
        assert each.proxy.get_status("/ready")[0] == 200


def test_both_sides_read_and_write(shared: GroupStage, member: Member) -> None:
    """What one side has acknowledged is on both servers, at the latest a moment later."""
    with member.conn() as conn:
        assert conn.command("SET", "k", "v") == b"+OK\r\n"
        assert conn.command("INCR", "n") == b":1\r\n"
        assert conn.command("RPUSH", "l", "a", "b") == b":2\r\n"
        assert conn.command("GET", "k") == _bulk("v")
        assert conn.command("LRANGE", "l", 0, -1) == b"*2\r\n$1\r\na\r\n$1\r\nb\r\n"
    for each in shared.members:
        wait.until(lambda each=each: each.redis.cli("LLEN", "l") == 2, f"{each.name}'s Redis has it")
        assert each.ask("INCR", "n") in (b":2\r\n", b":3\r\n")
    assert shared.assert_equal() == 3


def test_a_client_reads_what_it_has_written(member: Member) -> None:
    """One after the other, and in one write; the reads are this member's own."""
    with member.conn() as conn:
        for number in range(300):
            assert conn.command("SET", "k", number) == b"+OK\r\n"
            assert conn.command("GET", "k") == _bulk(str(number))
        for number in range(100):
            replies = conn.pipeline(
                ("SET", "k", number), ("GET", "k"), ("INCR", "n"), ("GET", "n"), ("DEL", "k"), ("GET", "k")
            )
            assert replies == [
                b"+OK\r\n", _bulk(str(number)), b":%d\r\n" % (number + 1), _bulk(str(number + 1)), b":1\r\n", b"$-1\r\n"
            ]  # fmt: skip


def test_a_long_pipeline_keeps_its_order(member: Member) -> None:
    """Reads and writes mixed, thousands of them in one go."""
    commands: list[tuple[Any, ...]] = []
    expected = []
    for number in range(3_000):
        commands += [("APPEND", "a", "x"), ("STRLEN", "a"), ("PING", number)]
        expected += [b":%d\r\n" % (number + 1)] * 2 + [_bulk(str(number))]
    with member.conn() as conn:
        assert conn.pipeline(*commands) == expected


def test_transactions(shared: GroupStage, member: Member) -> None:
    """MULTI … EXEC as a whole, DISCARD, and one that Redis refuses."""
    with member.conn() as conn:
        queued = b"+QUEUED\r\n"
        assert conn.pipeline(("MULTI",), ("SET", "k", 1), ("INCR", "k"), ("GET", "k"), ("EXEC",)) == [
            b"+OK\r\n", queued, queued, queued, b"*3\r\n+OK\r\n:2\r\n$1\r\n2\r\n"
        ]  # fmt: skip
        assert conn.command("GET", "k") == _bulk("2")
        assert conn.pipeline(("MULTI",), ("SET", "k", 5), ("DISCARD",), ("GET", "k"))[3] == _bulk("2")
        replies = conn.pipeline(("MULTI",), ("SET", "k"), ("EXEC",), ("GET", "k"))
        assert replies[1].startswith(b"-ERR wrong number")
        assert replies[2].startswith(b"-EXECABORT")
        assert replies[3] == _bulk("2")
        replies = conn.pipeline(("MULTI",), ("LPUSH", "k", 1), ("SET", "j", 1), ("EXEC",))
        assert replies[3].startswith(b"*2\r\n-WRONGTYPE")
        assert conn.pipeline(("MULTI",), ("SELECT", 2), ("SET", "two", 2), ("EXEC",))[3] == b"*2\r\n+OK\r\n+OK\r\n"
        assert conn.command("GET", "two") == _bulk("2")  # EXEC has changed the database
        assert conn.pipeline(("SELECT", 0), ("GET", "two"))[1] == b"$-1\r\n"
    shared.assert_equal()


def test_scripts(shared: GroupStage, member: Member) -> None:
    """EVAL, EVALSHA and functions, of which not all can be repeated elsewhere."""
    load = "#!lua name=mylib\nredis.register_function('put', function(k, a) return redis.call('set', k[1], a[1]) end)"
    with member.conn() as conn:
        assert conn.command("EVAL", "return redis.call('incr', KEYS[1])", 1, "n") == b":1\r\n"
        sha = conn.command("SCRIPT", "LOAD", "return redis.call('incrby', KEYS[1], ARGV[1])")[5:-2]
        assert conn.command("EVALSHA", sha, 1, "n", 5) == b":6\r\n"
        now = (
            "local t = redis.call('time'); redis.call('set', KEYS[1], t[1] .. t[2]); return redis.call('get', KEYS[1])"
        )
        told = conn.command("EVAL", now, 1, "t")
        assert conn.command("GET", "t") == told
        random = "return redis.call('spop', KEYS[1], 3)"
        conn.command("SADD", "s", *range(20))
        conn.command("EVAL", random, 1, "s")
        assert conn.command("SCARD", "s") == b":17\r\n"
        assert conn.command("EVAL", "redis.call('set', KEYS[1], 1); return redis.call('nope')", 1, "half").startswith(
            b"-"
        )
        assert conn.command("GET", "half") == _bulk("1")
        assert conn.command("FUNCTION", "LOAD", "REPLACE", load) == _bulk("mylib")
        assert conn.command("FCALL", "put", 1, "f", "of a function") == b"+OK\r\n"
        assert conn.command("GET", "f") == _bulk("of a function")
    shared.assert_equal()
    # Whoever has not seen the script can run it, too.
    other = next(each for each in shared.members if each is not member)
    assert other.ask("EVALSHA", sha, 1, "n", 1) == b":7\r\n"
    assert other.ask("FUNCTION", "FLUSH") == b"+OK\r\n"


def test_resp3(member: Member) -> None:
    """HELLO 3: maps, nulls and doubles come as such, of writes as of reads; and back to RESP2 on that connection."""
    with member.conn() as conn:
        assert conn.command("HELLO", 3).startswith(b"%")
        assert conn.command("HSET", "h", "a", "b") == b":1\r\n"
        assert conn.command("HGETALL", "h") == b"%1\r\n$1\r\na\r\n$1\r\nb\r\n"
        assert conn.command("GET", "nothing") == b"_\r\n"
        assert conn.command("GETDEL", "nothing") == b"_\r\n"
        assert conn.command("ZADD", "z", 1.5, "m") == b":1\r\n"
        assert conn.command("ZINCRBY", "z", 1, "m") == b",2.5\r\n"
        assert conn.command("ZPOPMIN", "z") == b"*2\r\n$1\r\nm\r\n,2.5\r\n"
        assert conn.command("EVAL", "return redis.call('hset', KEYS[1], 'c', 'd')", 1, "h") == b":1\r\n"
        assert conn.command("HELLO", 2).startswith(b"*14")
        assert conn.command("HGETALL", "h") == b"*4\r\n$1\r\na\r\n$1\r\nb\r\n$1\r\nc\r\n$1\r\nd\r\n"
        assert conn.command("GETDEL", "nothing") == b"$-1\r\n"
        assert conn.command("RESET") == b"+RESET\r\n"
        assert conn.command("HELLO", 4).startswith(b"-NOPROTO")


def test_databases(shared: GroupStage, member: Member) -> None:
    """SELECT, SWAPDB, MOVE, FLUSHDB; an index that is none is Redis's own error."""
    with member.conn() as conn:
        for database in (0, 3, 15):
            assert conn.pipeline(("SELECT", database), ("SET", "k", database), ("GET", "k"))[2] == _bulk(str(database))
        assert conn.command("SELECT", 16) == b"-ERR DB index is out of range\r\n"
        assert conn.command("GET", "k") == _bulk("15")
        assert conn.pipeline(("SWAPDB", 3, 15), ("GET", "k"))[1] == _bulk("3")
        assert conn.pipeline(("SELECT", 0), ("MOVE", "k", 7), ("EXISTS", "k"))[1:] == [b":1\r\n", b":0\r\n"]
        assert conn.pipeline(("SELECT", 3), ("FLUSHDB",), ("DBSIZE",))[2] == b":0\r\n"
    assert shared.assert_equal() == 2
    assert {place[0] for place in contents(shared[0].redis)} == {7, 15}


def test_all_types(shared: GroupStage, member: Member) -> None:
    """One key of each type and encoding, written through the member."""
    with member.conn() as conn:
        for command in every_type.COMMANDS:
            assert not conn.command(*command).startswith(b"-"), command
    assert shared.assert_equal() == every_type.KEYS - 1
    assert member.ask("FUNCTION", "FLUSH") == b"+OK\r\n"


def test_expiries(shared: GroupStage, member: Member) -> None:
    """The same moment on both servers, and gone on both after it, at either side."""
    with member.conn() as conn:
        conn.pipeline(("SET", "k", 1, "EX", 100), ("SET", "j", 1), ("PEXPIRE", "j", 250_000), ("SETEX", "s", 300, "v"))
        conn.pipeline(("SET", "short", 1, "PX", 150), ("INCR", "short"))
        assert conn.command("GET", "short") in (_bulk("2"), b"$-1\r\n")
    shared.wait_in_sync()
    for key in ("k", "j", "s"):
        moments = {each.redis.cli("PEXPIRETIME", key) for each in shared.members}
        assert len(moments) == 1
        assert moments.pop() > time.time() * 1000
    for each in shared.members:
        wait.until(lambda each=each: each.ask("GET", "short") == b"$-1\r\n", "it is gone", 3)
        wait.until(lambda each=each: each.redis.cli("EXISTS", "short") == 0, "it is gone from the Redis", 3)
    assert shared.assert_equal() == 3


def test_large_values(shared: GroupStage, member: Member) -> None:
    """20 MB in one command, there and back, and other clients are served meanwhile."""
    value = bytes(range(256)) * (20 << 12)
    with member.conn(30) as conn, member.conn() as other:
        conn.send_command("SET", "large", value)
        assert other.command("SET", "small", 1) == b"+OK\r\n"
        assert conn.reply() == b"+OK\r\n"
        assert conn.command("GET", "large") == _bulk(value)
        assert conn.command("APPEND", "large", "end") == b":%d\r\n" % (len(value) + 3)
        assert conn.command("GETRANGE", "large", -6, -1) == _bulk(value[-3:] + b"end")
    assert shared.assert_equal() == 2
    assert member.ask("DEL", "large") == b":1\r\n"


@pytest.mark.parametrize("command", [("REPLICAOF", "NO", "ONE"), ("SHUTDOWN",), ("DEBUG", "SLEEP", 0), ("FAILOVER",)])
def test_what_is_refused(member: Member, command: tuple[Any, ...]) -> None:
    """What would break the group: a clear error, and the connection goes on."""
    with member.conn() as conn:
        replies = conn.pipeline(command, ("PING",))
        assert b"is refused" in replies[0]
        assert replies[1] == b"+PONG\r\n"


def test_errors_of_redis_are_its_own(member: Member) -> None:
    """Wrong types, wrong arguments, unknown commands: Redis's texts, and nothing changed."""
    with member.conn() as conn:
        conn.command("SET", "k", "text")
        assert conn.command("INCR", "k") == b"-ERR value is not an integer or out of range\r\n"
        assert conn.command("LPUSH", "k", 1).startswith(b"-WRONGTYPE ")
        assert conn.command("SET", "k") == b"-ERR wrong number of arguments for 'set' command\r\n"
        assert conn.command("NOSUCH", 1).startswith(b"-ERR unknown command")
        assert conn.command("EVALSHA", "f" * 40, 0).startswith(b"-NOSCRIPT ")
        assert conn.command("GET", "k") == _bulk("text")


# --- consistency ---


def test_consistency_of_a_connection(member: Member) -> None:
    """It is asked for and told, each connection has its own, RESET takes it back."""
    told = b"*4\r\n$5\r\nwrite\r\n%b$4\r\nread\r\n%b"
    with member.conn() as conn, member.conn() as other:
        assert conn.command("REDISHA", "CONSISTENCY") == told % (_bulk("one"), _bulk("one"))
        assert conn.command("REDISHA", "CONSISTENCY", "quorum", "leader") == b"+OK\r\n"
        assert conn.command("REDISHA", "CONSISTENCY") == told % (_bulk("quorum"), _bulk("leader"))
        assert conn.pipeline(("SET", "k", 1), ("GET", "k"), ("INCR", "k")) == [b"+OK\r\n", _bulk("1"), b":2\r\n"]
        assert conn.command("REDISHA", "CONSISTENCY", "all") == b"+OK\r\n"
        assert conn.command("REDISHA", "CONSISTENCY") == told % (_bulk("all"), _bulk("leader"))
        assert conn.command("REDISHA", "CONSISTENCY", "most").startswith(b"-ERR ")
        assert other.command("REDISHA", "CONSISTENCY") == told % (_bulk("one"), _bulk("one"))


def test_reset_takes_consistency_back(member: Member) -> None:
    """As all other state of a connection; a pool of connections relies on it."""
    with member.conn() as conn:
        before = conn.command("REDISHA", "CONSISTENCY")
        assert conn.command("REDISHA", "CONSISTENCY", "all", "leader") == b"+OK\r\n"
        assert conn.command("RESET") == b"+RESET\r\n"
        assert conn.command("REDISHA", "CONSISTENCY") == before


def test_wait(member: Member) -> None:
    """WAIT counts the members that have what this connection has written, without the leader."""
    with member.conn() as conn:
        assert conn.pipeline(("SET", "k", 1), ("WAIT", 1, 5_000), ("GET", "k"))[1:] == [b":1\r\n", _bulk("1")]
        begun = time.monotonic()
        assert conn.pipeline(("SET", "k", 2), ("WAIT", 5, 200))[1] == b":1\r\n"
        assert time.monotonic() - begun < 5


def test_dynomites_word_for_it(member: Member) -> None:
    """``DYNO_CONFIG:CONN_CONSISTENCY`` of Dynomite's clients."""
    with member.conn() as conn:
        for word, write, read in [
            ("DC_QUORUM", "quorum", "leader"),
            ("DC_ONE", "one", "one"),
            ("dc_each_safe_quorum", "all", "leader"),
        ]:
            assert conn.command("DYNO_CONFIG:CONN_CONSISTENCY", word) == b"+OK\r\n"
            told = conn.command("REDISHA", "CONSISTENCY")
            assert told == b"*4\r\n$5\r\nwrite\r\n%b$4\r\nread\r\n%b" % (_bulk(write), _bulk(read))
            assert conn.pipeline(("SET", "k", 1), ("GET", "k"))[1] == _bulk("1")
        assert conn.command("DYNO_CONFIG:CONN_CONSISTENCY", "DC_SOME").startswith(b"-ERR ")


@pytest.mark.parametrize("level", ["quorum", "all"])
def test_reads_of_the_leader_know_everything(shared: GroupStage, member: Member, level: str) -> None:
    """A write acknowledged at one side is seen by a read ``leader`` at the other at once, every time."""
    other = next(each for each in shared.members if each is not member)
    with member.conn() as writer, other.conn() as reader:
        assert writer.command("REDISHA", "CONSISTENCY", level) == b"+OK\r\n"
        assert reader.command("REDISHA", "CONSISTENCY", "one", "leader") == b"+OK\r\n"
        for number in range(200):
            assert writer.command("SET", "k", number) == b"+OK\r\n"
            assert reader.command("GET", "k") == _bulk(str(number))


def test_all_is_everywhere(shared: GroupStage, member: Member) -> None:
    """A write acknowledged with ``all`` is in both Redis servers when its reply comes."""
    with member.conn() as conn:
        assert conn.command("REDISHA", "CONSISTENCY", "all") == b"+OK\r\n"
        for number in range(100):
            assert conn.command("SET", "k", number) == b"+OK\r\n"
            for each in shared.members:
                assert each.redis.cli("GET", "k") == str(number).encode()


def test_too_few_in_sync(group) -> None:
    """``min_in_sync: 2`` with one member: ``quorum`` is refused and nothing is written; ``one`` and reads go on."""
    stage = group(min_in_sync=2)
    leader, follower = stage.pair()
    follower.kill()
    with leader.conn() as conn:
        assert conn.command("SET", "k", "one") == b"+OK\r\n"
        assert conn.command("REDISHA", "CONSISTENCY", "quorum") == b"+OK\r\n"
        reply = wait.until(
            lambda: (reply := conn.command("SET", "k", "quorum")).startswith(b"-NOREPLICAS ") and reply,
            "the leader knows that it is alone",
        )
        assert b"2" in reply
        before = conn.command("GET", "k")
        assert conn.command("SET", "k", "refused").startswith(b"-NOREPLICAS ")
        replies = conn.pipeline(("MULTI",), ("SET", "k", "refused"), ("EXEC",))
        assert replies[2].startswith((b"-NOREPLICAS ", b"-EXECABORT "))
        assert conn.command("GET", "k") == before
        assert conn.pipeline(("REDISHA", "CONSISTENCY", "one"), ("SET", "k", "again"))[1] == b"+OK\r\n"
        follower.start()
        stage.wait_in_sync()
        assert conn.pipeline(("REDISHA", "CONSISTENCY", "quorum"), ("SET", "k", "two"))[1] == b"+OK\r\n"
    assert stage.assert_equal() == 1


def test_consistency_of_a_listener_and_of_the_group(group) -> None:
    """The listener's word counts before the group's, a connection's before the listener's."""
    stage = group(write_consistency="all", read_consistency="leader", listener={"write_consistency": "quorum"})
    told = stage[0].ask("REDISHA", "CONSISTENCY")
    assert told == b"*4\r\n$5\r\nwrite\r\n$6\r\nquorum\r\n$4\r\nread\r\n$6\r\nleader\r\n"
    for each in stage.members:
        with each.conn() as conn:
            assert conn.pipeline(("SET", "k", each.name), ("GET", "k")) == [b"+OK\r\n", _bulk(each.name)]


# --- passwords ---


def test_redis_with_a_password(group) -> None:
    """``auth`` of the group is what the sidecar says to its Redis; clients need none unless the listener says so."""
    stage = group(start=False, auth={"password": "hidden"})
    for each in stage.members:
        each.redis.cli("CONFIG", "SET", "requirepass", "hidden")
    for each in stage.members:
        each.start_unchecked()
    stage.wait_in_sync()
    for each in stage.members:
        with each.conn() as conn:
            assert conn.pipeline(("SET", "k", 1), ("INCR", "k"), ("GET", "k"))[2] == _bulk("2")
    stage.wait_in_sync()
    for each in stage.members:
        with each.redis.client(password="hidden") as client:
            assert client.get("k") == b"2"
        assert "hidden" not in each.log()


def test_secret(group) -> None:
    """Members that know the same secret form a group; it is in no log and in no status."""
    stage = group(secret="known to both")
    assert stage[0].ask("SET", "k", 1) == b"+OK\r\n"
    stage.assert_equal()
    for each in stage.members:
        assert "known to both" not in each.log()
        assert "known to both" not in str(each.info())
        assert b"known to both" not in each.proxy.get("/config_dump")


# --- peers that are none ---


def _apart(stage: GroupStage) -> None:
    """Start both; neither is to wait for the other."""
    for each in stage.members:
        each.start()


def _says(member: Member, *words: str) -> None:
    """The member tells its operator about its peer: in its log and in its status, with these words."""

    def told() -> bool:
        peers = member.look().get("peers", [])
        reasons = " ".join(peer["reason"] for peer in peers)
        log = member.log()
        return all(word in reasons for word in words) and all(word in log for word in words)

    wait.until(told, f"{member.name} says {words}; it says {member.look()} {member.log()[-2_000:]}", 10)


def _serve_apart(stage: GroupStage) -> None:
    """Each serves its own clients (they do not see each other and are ``available``), the other has nothing of it."""
    for each in stage.members:
        assert each.ask("SET", f"of:{each.name}", 1) == b"+OK\r\n"
    for each in stage.members:
        assert set(contents(each.redis)) == {(0, f"of:{each.name}".encode())}


def test_wrong_secret(group) -> None:
    """Both say what is wrong, neither touches the other's data."""
    stage = group(start=False, each=[{"secret": "one"}, {"secret": "another"}])
    _apart(stage)
    for each in stage.members:
        _says(each, "WRONGPASS", "secret")
    _serve_apart(stage)


def test_another_group(group) -> None:
    """A peer port that belongs to another group."""
    stage = group(start=False, each=[{}, {"name": "other"}], listener={})
    stage[1].proxy._config["listeners"][0]["group"] = "other"
    _apart(stage)
    for each in stage.members:
        _says(each, "group", "other", "cache")
    _serve_apart(stage)


def test_two_members_with_one_name(group) -> None:
    """Both are told to give each a name of its own."""
    stage = group(start=False, each=[{"member": "twin"}, {"member": "twin"}])
    _apart(stage)
    for each in stage.members:
        _says(each, "twin", "name of its own")
    for number, each in enumerate(stage.members):
        each.ask("SET", f"of:{number}", 1)
    assert set(contents(stage[0].redis)) & set(contents(stage[1].redis)) == set()


def test_another_version(group) -> None:
    """A peer that speaks another version: its words are shown here, ours there."""
    with FakePeer(b"-ERR this member speaks version 9 of the peers' protocol, not 1: run the same version\r\n") as peer:
        stage = group(1, start=False, peers=[peer.address])
        stage[0].start()
        _says(stage[0], "version 9")
        port = int(stage[0].proxy._config["group"]["listen"].rpartition(":")[2])
        with Conn(port) as conn:
            reply = conn.command("REDISHA", "PEER", 9, "STREAM", "cache", "redis-002", 99, 5, "")
            assert b"version 1" in reply
            assert b"not 9" in reply
            assert conn.until_closed() == b""


def test_a_members_clock_is_an_hour_ahead(group) -> None:
    """It is told once, with by how much; and again when the clocks agree."""
    with FakePeer(b"+OK redis-002 7\r\n") as peer:
        stage = group(1, start=False, peers=[peer.address])
        stage[0].start_unchecked()
        wait.until(lambda: stage[0].proxy.get_status("/healthz"), "the admin server answers", 20)
        port = int(stage[0].proxy._config["group"]["listen"].rpartition(":")[2])
        status = {"member": "redis-002", "term": 0, "leader": "", "role": "none", "data": "empty", "set": ""}
        status |= {"generation": 0, "sequence": 0, "in_sync": False, "journal": 0, "led": False, "counts": False}

        def beat(ahead: float) -> None:
            with Conn(port) as conn:
                assert conn.command("REDISHA", "PEER", 1, "BEAT", "cache", "redis-002", 0, 7, "").startswith(b"+OK")
                now = {"unix_ms": int((time.time() + ahead) * 1000), "nonce": 7, "at_us": time.monotonic_ns() // 1000}
                conn.command("REDISHA", "BEAT", json.dumps(status | now))

        def told(ahead: float, text: str) -> bool:
            beat(ahead)
            return text in stage[0].log()

        wait.until(lambda: told(3600.5, "the clock of redis-002 is 1:00:00 ahead of this member's"), "it is told", 10)
        [seen] = stage[0].info()["peers"]
        assert 3_600_000 <= seen["skew_ms"] <= 3_600_500
        wait.until(lambda: told(0, "the clock of redis-002 agrees"), "it is told again", 10)
        assert stage[0].log().count("the clock of redis-002 is") == 1


def test_a_peer_that_is_something_else(group, redis_server) -> None:
    """A peer's address that leads to a Redis, or to a server of another kind."""
    other = redis_server()
    with FakePeer(b"HTTP/1.1 400 Bad Request\r\n\r\n") as web:
        stage = group(1, start=False, peers=[other.address, web.address])
        stage[0].start()
        wait.until(
            lambda: len([peer for peer in stage[0].info()["peers"] if peer["reason"]]) == 2, "both are shown to be none"
        )
        reasons = {peer["id"]: peer["reason"] for peer in stage[0].info()["peers"]}
        assert "unknown command" in reasons[other.address]
    assert other.cli("DBSIZE") == 0


def test_clients_at_the_peer_port(shared: GroupStage) -> None:
    """redis-cli at the wrong port is told which one is right; nothing of what it says is done."""
    port = int(shared[0].proxy._config["group"]["listen"].rpartition(":")[2])
    for command in [("PING",), ("HELLO", 3), ("SET", "wrong", 1), ("FLUSHALL",), ("REDISHA", "INFO")]:
        with Conn(port) as conn:
            conn.send_command(*command)
            assert conn.until_closed(5).startswith(b"-ERR this is the peer port of a redisha group")
    with Conn(port) as conn:
        conn.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert conn.until_closed(5).startswith(b"-ERR ")
    assert shared[0].ask("EXISTS", "wrong") == b":0\r\n"


@pytest.mark.parametrize(
    "words",
    [("BEAT",), ("CALL",), ("STREAM",)],
)
def test_a_stranger_that_knows_the_words(group, words: tuple[str, ...]) -> None:
    """Without the secret nobody gets anything, whatever name and term he claims."""
    stage = group(secret="known to both")
    leader, follower = stage.pair()
    assert leader.ask("SET", "k", 1) == b"+OK\r\n"
    for each in (leader, follower):
        port = int(each.proxy._config["group"]["listen"].rpartition(":")[2])
        for secret in ("", "guessed"):
            with Conn(port) as conn:
                conn.send_command("REDISHA", "PEER", 1, *words, "cache", "redis-009", 999, 5, secret)
                conn.send_command("FLUSHALL")
                assert conn.until_closed(5).startswith(b"-WRONGPASS ")
    assert stage.wait_leader() is leader
    assert leader.info()["me"]["term"] < 999
    assert follower.ask("GET", "k") == _bulk("1")


# --- starting ---


def test_peer_not_there_at_start_available(group) -> None:
    """``available``: alone it leads after its wait; the other finds a leader and is filled."""
    stage = group(start=False, on_partition="available")
    first, second = stage.members
    begun = time.monotonic()
    first.start()
    assert stage.wait_leader([first]) is first
    assert time.monotonic() - begun < 10
    assert first.ask("SET", "k", 1) == b"+OK\r\n"
    second.start()
    stage.wait_in_sync()
    assert stage.wait_leader() is first
    assert second.ask("GET", "k") == _bulk("1")
    assert stage.assert_equal() == 1


def test_peer_not_there_at_start_consistent(group) -> None:
    """``consistent``: alone it does not lead; writes are refused with what to do, reads are answered."""
    stage = group(on_partition="consistent", op_timeout="500ms")
    assert stage[0].ask("SET", "k", 1) == b"+OK\r\n"
    stage.wait_in_sync()
    alone, other = stage.pair()
    for each in (other, alone):
        each.kill()
    alone.start()
    begun = time.monotonic()
    reply = alone.ask("SET", "k", 2)
    assert reply.startswith(b"-NOLEADER ")
    assert time.monotonic() - begun < 5
    assert alone.ask("GET", "k") == _bulk("1")
    assert alone.info()["me"]["role"] == "none"
    assert alone.redis.cli("GET", "k") == b"1"
    other.start()
    stage.wait_leader()
    assert alone.ask("SET", "k", 3) == b"+OK\r\n"
    stage.assert_equal()


def test_a_command_waits_for_a_leader(group) -> None:
    """A write that comes before anybody leads is answered as soon as somebody does."""
    stage = group(start=False, on_partition="consistent", op_timeout="15s")
    first, second = stage.members
    first.start()
    with first.conn(20) as conn:
        conn.send_command("SET", "k", 1)
        assert conn.silent_for(0.5)
        second.start()
        assert conn.reply(15) == b"+OK\r\n"
    stage.assert_equal()


@pytest.mark.parametrize("first", [0, 1], ids=["with-data-first", "empty-first"])
def test_founded_on_data(group, first: int) -> None:
    """One Redis has data, the other is empty: the other is filled, whoever starts first, and nothing is lost."""
    stage = group(start=False)
    every_type.fill(stage[0].redis)
    kept = contents(stage[0].redis)
    stage[first].start_unchecked()
    time.sleep(0.1)
    stage[1 - first].start_unchecked()
    stage.wait_in_sync()
    assert stage.assert_equal() == every_type.KEYS
    assert contents(stage[1].redis) == kept
    assert stage.wait_leader() is stage[0]


def test_founded_on_data_under_load(group) -> None:
    """Clients write from the first moment on while the other is filled."""
    stage = group(start=False, top={"resync": {"max_keys_per_second": 20_000}})
    with stage[0].redis.client() as client:
        client.mset({f"fill:{number}": "x" * 50 for number in range(20_000)})
    stop = threading.Event()
    written = 0

    def write() -> None:
        nonlocal written
        with stage[0].conn() as conn:
            while not stop.is_set():
                assert conn.command("SET", f"fill:{written % 30_000}", f"new {written}") == b"+OK\r\n"
                written += 1

    writer = threading.Thread(target=write, daemon=True)
    for each in stage.members:
        each.start()
    writer.start()
    stage.wait_counted()
    stop.set()
    writer.join(10)
    assert written > 0
    assert stage.assert_equal() >= 20_000


def test_two_with_different_data(group) -> None:
    """Two members with data and no common history: neither is changed, both say what the ways out are.

    The last of them: one Redis is started again without its data.
    """
    stage = group(start=False)
    for number, each in enumerate(stage.members):
        each.redis.cli("MSET", "mine", number, f"of:{number}", 1)
    before = [contents(each.redis) for each in stage.members]
    _apart(stage)

    def told(member: Member) -> bool:
        log = member.log()
        return "redisha init --from" in log and "empty" in log

    wait.until(lambda: all(told(each) for each in stage.members), "both name the ways out", 15)
    assert [contents(each.redis) for each in stage.members] == before
    for each in stage.members:
        assert each.info()["me"]["role"] == "none"
    stage[1].empty_redis()
    stage.wait_in_sync(20)
    assert contents(stage[1].redis) == before[0]
    assert stage.assert_equal() == 2


def test_two_with_different_data_and_one_is_flushed(group) -> None:
    """'Empty one of the two Redis servers yourself', as the text says: with FLUSHALL."""
    stage = group(start=False)
    for number, each in enumerate(stage.members):
        each.redis.cli("SET", "mine", number)
    _apart(stage)
    wait.until(lambda: all("init --from" in each.log() for each in stage.members), "both refuse", 15)
    stage[1].redis.wipe()
    stage.wait_in_sync(10)
    assert stage[1].redis.cli("GET", "mine") == b"0"


def test_the_command_that_is_named() -> None:
    """``redisha init``, to which the refusal points."""
    done = subprocess.run(
        [sys.executable, "-m", "redisha", "init", "--help"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    assert "--from" in done.stdout


def test_two_with_different_data_answer_reads_only(group) -> None:
    """Until it is decided they answer no write, and say why."""
    stage = group(start=False, op_timeout="500ms")
    for number, each in enumerate(stage.members):
        each.redis.cli("MSET", "mine", number)
    _apart(stage)
    for number, each in enumerate(stage.members):
        assert each.ask("SET", "mine", "new").startswith(b"-NOLEADER ")
        assert each.redis.cli("GET", "mine") == str(number).encode()


def test_unreachable_redis_at_start(group) -> None:
    """The member without its Redis serves its clients through the other; when it comes it is filled."""
    stage = group(start=False, redis_start=False)
    stage[0].start_redis()
    for each in stage.members:
        each.start()
    assert stage.wait_leader() is stage[0]
    with stage[1].conn() as conn:
        assert conn.pipeline(("SET", "k", 1), ("INCR", "k"), ("GET", "k")) == [b"+OK\r\n", b":2\r\n", _bulk("2")]
    stage[1].start_redis()
    assert stage.assert_equal() == 1


def test_peer_port_is_taken(group) -> None:
    """The start ends with the address in the error."""
    stage = group(1, start=False, peers=[f"127.0.0.1:{free_port()}"])
    with FakePeer(b"") as taken:
        stage[0].proxy._config["group"]["listen"] = taken.address
        stage[0].start_unchecked()
        assert stage[0].proxy.wait_exit() != 0
        assert taken.address in stage[0].log()
        assert "Traceback" not in stage[0].log()


# --- statistics ---


def test_statistics_and_ready(shared: GroupStage) -> None:
    """The admin server's pages work for members, and say who leads."""
    leader, follower = shared.pair()
    for each in (leader, follower):
        for path in ("/stats", "/stats?format=json", "/stats/prometheus", "/clusters", "/ready", "/server_info"):
            assert each.proxy.get_status(path)[0] == 200, path
    [replica] = leader.proxy.stats()["replicas"]
    assert replica["state"] == "in_sync"


def test_ends_in_order(group) -> None:
    """SIGTERM to the leader: the other leads before the process has ended."""
    stage = group()
    leader, follower = stage.pair()
    with follower.conn() as conn:
        assert conn.command("SET", "k", 1) == b"+OK\r\n"
        leader.stop()
        assert conn.command("INCR", "k") == b":2\r\n"
    assert stage.wait_leader([follower]) is follower
    leader.start()
    assert stage.assert_equal() == 1
