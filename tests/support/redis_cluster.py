"""A real Redis Cluster: six ``redis-server`` processes that ``redis-cli --cluster create`` made one."""

import subprocess
from collections.abc import Callable
from typing import Any

from support import wait
from support.ports import free_port
from support.redis_server import RedisServer

NODES = 6
_SLOTS = 16_384


class RedisCluster:
    """Three masters with a replica each."""

    def __init__(self, make: Callable[..., RedisServer], **options: str) -> None:
        """Start the servers (``make`` is the fixture's factory), and make them a cluster."""
        settings = {"cluster_enabled": "yes", "cluster_node_timeout": "1000", "cluster_replica_validity_factor": "0"}
        settings |= {"repl_diskless_sync_delay": "0"} | options
        self.nodes = [make(**settings, cluster_port=str(free_port())) for _ in range(NODES)]
        self.cli("create", *self.addresses, "--cluster-replicas", "1", "--cluster-yes")
        wait.until(self._settled, "the cluster works, with its replicas", 60)

    @property
    def addresses(self) -> list[str]:
        """Of all nodes."""
        return [each.address for each in self.nodes]

    def cli(self, command: str, *args: str) -> str:
        """``redis-cli --cluster``."""
        argv = ["redis-cli", "--cluster", command, *args]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, f"{argv}: {done.stdout}{done.stderr}"
        return done.stdout

    def alive(self) -> list[RedisServer]:
        """The nodes that run."""
        return [each for each in self.nodes if each.is_running()]

    def node(self, port: int) -> RedisServer:
        """The node with this port."""
        return next(each for each in self.nodes if each.port == port)

    def is_master(self, node: RedisServer) -> bool:
        """Whether a node has slots of its own."""
        return any(each[2][1] == node.port for each in _ranges(self.alive()[0]))

    def wait_for_replica(self, node: RedisServer) -> None:
        """Until a replica has all that its master has."""
        master = self.node(int(node.cli("INFO", "replication")["master_port"]))
        offset = master.cli("INFO", "replication")["master_repl_offset"]
        wait.until(lambda: node.cli("INFO", "replication")["slave_repl_offset"] >= offset, "the replica has all")

    def owner(self, slot: int) -> RedisServer:
        """The master of a slot."""
        for server in self.alive():
            for each in _ranges(server):
                if each[0] <= slot <= each[1]:
                    return self.node(each[2][1])
        raise AssertionError(f"slot {slot} has no master")

    def others(self, than: RedisServer) -> list[RedisServer]:
        """The masters but for one."""
        ports = {each[2][1] for each in _ranges(self.alive()[0])}
        return [self.node(port) for port in sorted(ports) if port != than.port]

    def begin_move(self, slot: int, to: RedisServer) -> RedisServer:
        """A slot is on its way: its owner answers for the keys it has, and ASKs for the others. Gives that owner."""
        owner = self.owner(slot)
        to.cli("CLUSTER SETSLOT", slot, "IMPORTING", owner.cli("CLUSTER MYID"))
        owner.cli("CLUSTER SETSLOT", slot, "MIGRATING", to.cli("CLUSTER MYID"))
        return owner

    def move_keys(self, slot: int, owner: RedisServer, to: RedisServer) -> int:
        """Move the keys of a slot; how many there were."""
        moved = 0
        while keys := owner.cli("CLUSTER GETKEYSINSLOT", slot, 100):
            owner.cli("MIGRATE", to.host, to.port, "", 0, 5000, "KEYS", *keys)
            moved += len(keys)
        return moved

    def end_move(self, slot: int, owner: RedisServer, to: RedisServer) -> None:
        """The slot has arrived."""
        for each in (to, owner, *self.others(owner)):
            each.cli("CLUSTER SETSLOT", slot, "NODE", to.cli("CLUSTER MYID"))

    def move(self, slot: int, to: RedisServer) -> None:
        """All of it."""
        owner = self.begin_move(slot, to)
        self.move_keys(slot, owner, to)
        self.end_move(slot, owner, to)

    def _settled(self) -> bool:
        for each in self.nodes:
            ranges = _ranges(each)
            if sum(last - first + 1 for first, last, *_ in ranges) != _SLOTS or any(len(one) < 4 for one in ranges):
                return False
            if b"cluster_state:ok" not in _raw(each, "CLUSTER INFO"):
                return False
            info = each.cli("INFO", "replication")
            if info["role"] == "slave" and info["master_link_status"] != "up":
                return False
        return True


def _ranges(server: RedisServer) -> list[Any]:
    return list(_raw(server, "CLUSTER SLOTS"))


def _raw(server: RedisServer, *args: str) -> Any:
    with server.client() as client:
        client.response_callbacks.clear()
        return client.execute_command(*args)
