"""What can go wrong with a server that is compared, in words that say what to change."""

from __future__ import annotations

from collections.abc import Iterable

from redisha.core import ReplyError
from redisha.errors import RedishaError


class ServerError(RedishaError):
    """A server cannot be asked or written, or may not be: the comparison or the copy ended without a result."""

    exit_code = 3


class NoDatabaseError(ServerError):
    """The server has fewer databases than the other."""


def refusal(address: str, what: str, error: ReplyError) -> ServerError:
    """An error reply of a server as our error.

    Args:
        address: the server.
        what: the command that it refused; no argument that may be secret.
        error: what it said.
    """
    text = str(error.args[0]) if error.args else ""
    code = text.partition(" ")[0]
    if code == "LOADING":
        return ServerError(f"{address} is loading its data: try again when it has it")
    if code == "NOAUTH":
        return ServerError(f"{address} asks for a password: give it as redis://user:password@host:port")
    if code == "WRONGPASS" or "AUTH" in text.partition(":")[0]:
        return ServerError(f"{address} refuses the user or the password: {text}")
    if code == "NOPERM":
        return ServerError(
            f"{address} does not allow {what} to this user: {text}; change its ACL, or take another user"
        )
    if code in {"MOVED", "ASK", "CLUSTERDOWN", "CROSSSLOT"}:
        return ServerError(f"{address} is a node of a cluster and does not serve every key: {text}")
    return ServerError(f"{address} refuses {what}: {text}")


def check(address: str, what: str, replies: Iterable[object]) -> None:
    """See that none of a server's replies is an error.

    Raises:
        ServerError: one is.
    """
    for reply in replies:
        if isinstance(reply, ReplyError):
            raise refusal(address, what, reply)


def is_missing(reply: object) -> bool:
    """Whether a reply says that the server does not have the command, or that this user may never call it."""
    if not isinstance(reply, ReplyError) or not reply.args:
        return False
    text = str(reply.args[0])
    return text.lower().startswith("err unknown") or (text.startswith("NOPERM") and "run the" in text)
