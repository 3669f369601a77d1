"""The section ``dynomite_stats``: what is told to programs that are used to asking Dynomite."""

from typing import Annotated

from pydantic import Field, Strict

from redisha.config.group import Peer
from redisha.config.section import Bind, Name, Section

# What a token of Dynomite's ring may be: 32 bits.
Token = Annotated[int, Field(ge=0, lt=2**32)]


class DynomiteNode(Section):
    """Another member as Dynomite's files name it."""

    peer: Peer
    """Which one: its entry in the group's peers."""
    datacenter: Name
    rack: Name
    token: Token = 0


class DynomiteStats(Section):
    """An HTTP server with Dynomite's paths and answers."""

    bind: Bind = "127.0.0.1:22222"
    datacenter: Name = "localdc"
    rack: Name = "localrack"
    token: Token = 0
    """With the two above: where this member is, in Dynomite's words. They are only told, and change nothing."""
    nodes: Annotated[tuple[DynomiteNode, ...], Strict(False)] = ()
    """The same of the others. One that is missing is told as a rack of its own."""
