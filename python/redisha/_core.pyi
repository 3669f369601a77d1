"""The contract between the control plane (Python) and the data plane (Rust).

Everything the two planes say to each other goes through this file: a plan and a few commands go down, events and
counters come up. ``mypy.stubtest`` checks it against the built extension in ``make lint``.

Only :mod:`redisha.core` imports this module.
"""

from typing import final

__all__ = [
    "BindError",
    "Core",
    "Event",
    "PlanError",
    "ReplyError",
    "ReplyReader",
    "__version__",
    "bucket",
    "command_table",
    "encode_command",
]

__version__: str

class PlanError(ValueError):
    """The plan is not one the data plane can run. Nothing was changed. The text names the place."""

class BindError(OSError):
    """A listener's address cannot be bound (in use, not ours, no permission). Nothing was changed.

    The text names the listener, the address and the system's reason.
    """

@final
class Event:
    """Something that happened on the data plane, told once and in order."""

    @property
    def kind(self) -> str:
        """What happened.

        - ``"applied"``: the plan of ``generation`` is in force (``subject`` is the generation as text).
        - ``"upstream_up"`` / ``"upstream_down"``: an endpoint's connection is ready / was lost or refused.
        - ``"replica"``: a mirror's replica changed its state; ``detail`` begins with the new state.
        - ``"healed"``: a resync of a replica came to its end; ``detail`` says what it took.
        - ``"overflow"``: the full log drops effects for a replica; a resync will copy what they changed.
        - ``"lost"``: effects were not delivered when a drain ended; ``detail`` says how many.
        - ``"primary"``: what is known of a primary's data has changed: it lost some, was filled, counts as it is.
        - ``"refill"``: ``subject`` is ``primary -> mirror``: the primary lost data that the mirror has, and waits to be
          filled from there. The answer is :meth:`Core.refilled`.
        - ``"same_server"``: a mirror is the primary's own Redis; nothing is sent to it.
        - ``"map"``: the file of a replica's dirty map cannot be used, or not be believed.
        - ``"group"``: who leads, or what is known of the members, has changed; see :meth:`Core.group`.
        - ``"merge"``: ``subject`` is the address of a member that wrote while it led itself, before anything of it is
          overwritten. The answer is :meth:`Core.merged`.
        - ``"ask"``: another member's control plane asks; ``subject`` is the number for :meth:`Core.answer`.
        - ``"answer"``: the answer to :meth:`Core.ask`; ``subject`` is its number, ``detail`` is empty if there is none.
        - ``"redirected"``: an endpoint of the cluster ``subject`` says that a slot has moved; ``detail`` says where to.
        - ``"listener"``: accepting failed for a time (for example out of file descriptors).
        - ``"drained"``: :meth:`Core.begin_drain` came to its end.
        - ``"worker_died"``: a worker panicked; ``detail`` is the panic's text. The data plane has stopped.
        """
    @property
    def subject(self) -> str:
        """What it happened to, for example ``redis-001/redis-001:6379`` or ``redis-001:6379 -> redis-002:6379``."""
    @property
    def detail(self) -> str:
        """Why, in words; may be empty."""

@final
class Core:
    """The data plane: one worker thread which owns every socket that a client waits for.

    Thread-safe. No method waits for the worker except :meth:`join`.
    """

    def __new__(cls) -> Core: ...
    def apply(self, plan: bytes) -> int:
        """Put a plan in force.

        :param plan: JSON as described by ``redisha.plan.Plan`` (UTF-8).
        :returns: the plan's generation.
        :raises PlanError: the plan is wrong; nothing was changed.
        :raises BindError: a new listener cannot be bound; nothing was changed.

        Listeners, endpoints and sessions that both plans have go on untouched. The first call starts the worker.
        The change is in force when the event ``applied`` arrives.
        """
    def fileno(self) -> int:
        """A descriptor that is readable while :meth:`drain_events` has something to give (an eventfd)."""
    def drain_events(self) -> list[Event]:
        """All events since the last call, oldest first. Never waits."""
    def stats(self) -> bytes:
        """A snapshot of all counters and gauges: JSON, see ``redisha.core.Stats``. Costs the data plane nothing."""
    def listeners(self) -> list[tuple[str, str]]:
        """(listener name, address as bound) of every listener in force; a port 0 of the plan is resolved here."""
    def resync(self, cluster: str, action: str) -> None:
        """What the operator wants of the replicas whose primary or mirror belongs to ``cluster``.

        - ``"start"``: look through everything that is marked dirty.
        - ``"full"``: compare and copy every key; an unmarked mirror is taken to be this sidecar's alone.
        - ``"pause"``, ``"resume"``: copies and scans stop, and go on.
        - ``"accept"``: a primary that is held or doubtful counts as it is.

        :raises ValueError: no such action.
        :raises RuntimeError: the data plane is not running.
        """
    def refilled(self, primary: str, ok: bool) -> None:
        """The copying that the event ``refill`` asked for has ended: ``primary`` (``cluster/endpoint``) has what its mirror
        has, or (``ok`` false) could not be filled.

        :raises RuntimeError: the data plane is not running.
        """
    def doubt(self, primary: str, mirror: str, keys: list[tuple[int, bytes]]) -> None:
        """These keys (database, key) were found to differ on ``mirror``: have them copied, in order with the writes.

        :raises RuntimeError: the data plane is not running.
        """
    def group(self) -> str:
        """What is known of the group: JSON, see ``redisha.group.status``; empty where there is none."""
    def lead(self, term: int) -> None:
        """This member leads the term (if it is newer than the one it knows).

        :raises RuntimeError: the data plane is not running.
        """
    def follow(self, term: int, leader: str) -> None:
        """The member ``leader`` leads the term; empty: nobody is known to.

        :raises RuntimeError: the data plane is not running.
        """
    def yield_lead(self, on: bool) -> None:
        """Take no more commands: they wait, while the log goes on to the others. Or take them again.

        :raises RuntimeError: the data plane is not running.
        """
    def count(self, members: list[str]) -> None:
        """The members whose acknowledgement a quorum needs, where no two may ever lead at once.

        :raises RuntimeError: the data plane is not running.
        """
    def arbiter_beat(self, age_ms: int) -> None:
        """The arbiter has renewed this leadership; it was asked ``age_ms`` ago.

        :raises RuntimeError: the data plane is not running.
        """
    def ask(self, peer: str, number: int, message: str) -> None:
        """Ask the control plane of the member at this peer address; the event ``answer`` follows.

        :raises RuntimeError: the data plane is not running.
        """
    def answer(self, number: int, message: str) -> None:
        """Answer another member's question.

        :raises RuntimeError: the data plane is not running.
        """
    def merged(self, peer: str, ok: bool) -> None:
        """What the member at this peer address wrote alone was looked at (``ok``), or could not be: then ``merge`` comes
        again.

        :raises RuntimeError: the data plane is not running.
        """
    def begin_drain(self, limit_ms: int) -> None:
        """Stop accepting, let each session finish what is in flight, then close it; after ``limit_ms`` close the rest.

        The event ``drained`` tells the end. Replicas are given the same limit to acknowledge what the log holds.
        """
    def join(self, timeout_ms: int) -> bool:
        """Stop the worker and wait for it, at most ``timeout_ms`` milliseconds, without the GIL.

        :returns: whether it has ended. May be called again.
        """
    def debug_panic(self) -> None:
        """Make the worker panic: for the test that a panic ends the process and never hangs it."""

@final
class ReplyReader:
    """Resumable reader of RESP2 and RESP3 replies, for the control plane: the data plane's own scanner."""

    def __new__(cls) -> ReplyReader: ...
    def feed(self, data: bytes) -> None:
        """Add bytes as they came from the socket."""
    def next(self) -> object:
        """The next complete reply, or ``NotImplemented`` when more bytes are needed.

        Status, bulk and verbatim strings are ``bytes``; integers ``int``; nil ``None``; arrays, sets and pushes ``list``;
        maps ``dict``; doubles ``float``; booleans ``bool``; an error reply is a :class:`ReplyError` *instance*.

        :raises ValueError: the bytes are not RESP.
        """
    def take(self, count: int) -> object:
        """The next ``count`` complete replies as the ``bytes`` they came in, or ``NotImplemented`` when more are needed.

        What two servers answered to the same commands is compared in this form without looking into it. To look into
        it, feed it to another reader.

        :raises ValueError: the bytes are not RESP.
        """

class ReplyError(Exception):
    """An error reply of a server, as a value. ``args[0]`` is its text, beginning with the code."""

def bucket(db: int, key: bytes) -> int:
    """The bucket (0 … 2^20 - 1) of a key in dirty maps: bit ``n % 8`` of byte ``n // 8``."""

def encode_command(args: list[bytes]) -> bytes:
    """One RESP command (an array of bulk strings)."""

def command_table() -> bytes:
    """The compiled command table as JSON: ``[{name, arity, flags, effect, treatment, ...}]``."""
