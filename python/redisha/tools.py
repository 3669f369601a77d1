"""What refills and scrubs borrow from :mod:`redisha.verify`: imported on the thread that needs it, never before.

Owns: the translation of a pair of servers and of a job into verify's words, and an event loop on that thread.
Never: runs in the process's own event loop: a comparison is arithmetic, too.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from redisha import derive
from redisha.background import Job, Stopped
from redisha.refill import Rates
from redisha.scrub import Pair, Sample

if TYPE_CHECKING:
    from redisha.verify import Progress, Server

T = TypeVar("T")

LOOK_EVERY = 0.05
"""Seconds between two looks at whether the work shall end."""

_KEY = re.compile(r"""\A(?:key b(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")|library [^:]*): """)
"""What names a key or a library at the beginning of an error; keys of clients are not logged."""


class IncompleteError(Exception):
    """Some keys could not be copied."""


def copy_all(pair: Pair, rates: Rates, job: Job) -> None:
    """Make the primary a copy of the mirror, in the keys that the two have in common.

    Raises:
        ServerError: a server cannot be asked or written.
        IncompleteError: some keys could not be copied.
        Stopped: the job shall end.
    """
    from redisha import verify

    def tell(progress: Progress) -> None:
        job.done, job.total, job.bytes = progress.done, progress.total, progress.bytes

    report = _run(
        verify.copy_all(
            _server(pair.mirror),
            _server(pair.primary),
            delete_extra=True,
            only=None if pair.scope.whole else pair.scope.has,
            limits=verify.Limits(rates.keys, rates.bytes),
            progress=tell,
        ),
        job,
    )
    job.done = job.total = report.keys
    job.bytes = report.bytes
    if not report.complete:
        raise IncompleteError(f"{report.failed} could not be copied: {_KEY.sub('', report.errors[0])}")


def compare(pair: Pair, count: int, job: Job) -> Sample:
    """Compare a random sample of keys; one that differs was looked at several times before it is believed.

    Raises:
        ServerError: a server cannot be asked.
        Stopped: the job shall end.
    """
    from redisha import verify

    differing: list[tuple[int, bytes]] = []
    options = verify.Options(sample=count, only=None if pair.scope.whole else pair.scope.has, limit=0)
    report = _run(
        verify.compare(
            _server(pair.primary),
            _server(pair.mirror),
            options,
            found=lambda database, key: differing.append((database, key)),
        ),
        job,
    )
    libraries = report.functions.remaining if report.functions is not None else 0
    return Sample(report.total.keys, tuple(differing), libraries)


def _server(server: derive.Server) -> Server:
    from redisha import verify

    if server.address is None:
        raise OSError(f"{server.name}: its name does not resolve")
    patience = max(10.0, server.op_timeout)
    return verify.Server(
        server.address, server.username, server.password, max(5.0, server.connect_timeout), reply_timeout=patience
    )


def _run(work: Coroutine[Any, Any, T], job: Job) -> T:
    """Run to the end on an event loop of this thread's own, unless the job is stopped."""

    async def supervised() -> T:
        task = asyncio.ensure_future(work)
        while not (await asyncio.wait([task], timeout=LOOK_EVERY))[0]:
            if job.stopped:
                task.cancel()
                await asyncio.wait([task])
                raise Stopped
        return task.result()

    return asyncio.run(supervised())
