"""Everything that the demo starts, and the one place that ends it: processes, and the temporary folder."""

import shutil
import signal
import tempfile
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self

from redisha.demo.servers import RedisServer
from redisha.demo.sidecars import Configure, Sidecar

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(BaseException):
    """A signal asked the demo to end.

    Attributes:
        signal: which.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.signal = signal.Signals(number)


def _stop(number: int, frame: FrameType | None) -> None:
    raise Stopped(number)


class Stage:
    """The folder, the servers and the sidecars. At the end of the ``with`` block nothing of it is left.

    Inside the block SIGINT, SIGTERM and SIGHUP raise :class:`Stopped`; while it is being left they are ignored, so that
    an impatient second Ctrl-C leaves nothing behind either.
    """

    def __init__(self) -> None:
        self._servers: list[RedisServer] = []
        self._sidecars: list[Sidecar] = []
        self._before: dict[signal.Signals, object] = {}
        self._folder = Path()

    @property
    def folder(self) -> Path:
        """Where everything lies."""
        return self._folder

    def server(self, name: str) -> RedisServer:
        """Start a Redis."""
        server = RedisServer(name, self._folder / name)
        self._servers.append(server)
        server.start()
        return server

    def sidecar(self, name: str, file: str, configure: Configure) -> Sidecar:
        """Start a sidecar, with its configuration in a file of this name."""
        sidecar = self.prepare(name, file, configure)
        sidecar.start()
        return sidecar

    def prepare(self, name: str, file: str, configure: Configure) -> Sidecar:
        """A sidecar that is started later, and ended with all others."""
        sidecar = Sidecar(name, self._folder / name / file, configure)
        self._sidecars.append(sidecar)
        return sidecar

    def retire(self, *programs: RedisServer | Sidecar) -> None:
        """End some of them before the others."""
        for program in programs:
            program.end()

    def __enter__(self) -> Self:
        self._folder = Path(tempfile.mkdtemp(prefix="redisha-demo-"))
        self._before = {number: signal.signal(number, _stop) for number in _SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        for programs in (self._sidecars, self._servers):
            for program in programs:
                program.ask_to_end()
            for program in programs:
                program.end()
        shutil.rmtree(self._folder, ignore_errors=True)
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what signal.signal gave
