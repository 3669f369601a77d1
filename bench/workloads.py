"""What is asked of every engine. Data."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Workload:
    """One run of redis-benchmark."""

    name: str
    command: str
    """What ``redis-benchmark -t`` calls it."""
    size: int = 3
    """Bytes of a value; 3 is redis-benchmark's own choice."""
    clients: int = 50
    pipeline: int = 1
    keys: int = 100_000
    """How many keys redis-benchmark chooses from, at random. All have a value before a run."""

    @property
    def arguments(self) -> list[str]:
        """The arguments of redis-benchmark, but for address and count."""
        numbers = {"-t": self.command, "-d": self.size, "-c": self.clients, "-P": self.pipeline, "-r": self.keys}
        return [text for name, value in numbers.items() for text in (name, str(value))]

    @property
    def title(self) -> str:
        """For a heading."""
        size = f"{self.size // 1024} KB" if self.size >= 1024 else f"{self.size} bytes"
        return f"{self.command.upper()}, {self.clients} clients, pipeline {self.pipeline}, {size}"


WORKLOADS: dict[str, Workload] = {
    workload.name: workload
    for workload in (
        Workload("set", "set"),
        Workload("get", "get"),
        Workload("set-p32", "set", pipeline=32),
        Workload("get-p32", "get", pipeline=32),
        Workload("set-16k", "set", size=16 * 1024, keys=2_000),
        # Not in the default run.
        Workload("get-16k", "get", size=16 * 1024, keys=2_000),
        Workload("incr", "incr"),
        Workload("lpush", "lpush"),
        Workload("lpop", "lpop"),
        Workload("set-p32-500c", "set", clients=500, pipeline=32),
        Workload("set-1c", "set", clients=1),
    )
}

DEFAULT = ("set", "get", "set-p32", "get-p32", "set-16k")
