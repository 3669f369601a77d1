"""A sidecar with two hooks, as a program: ``python hooked.py FILE``. Everything else is as in ``redisha run FILE``.

SIGUSR1 makes the data plane panic. SIGUSR2 blocks the control plane, holding the GIL, for :data:`BLOCKED` seconds.
"""

import asyncio
import os
import signal
import sys
import time
from pathlib import Path

BLOCKED = 2.0


def _block() -> None:
    """Hold the event loop and the GIL."""
    end = time.monotonic() + BLOCKED
    while time.monotonic() < end:
        pass


async def _run(file: Path) -> int:
    from redisha._core import Core
    from redisha.config.load import load
    from redisha.core import DataPlane
    from redisha.supervisor import Supervisor

    core = Core()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, core.debug_panic)
    loop.add_signal_handler(signal.SIGUSR2, _block)
    return await Supervisor(load(file), plane=DataPlane(core)).run()


def main() -> None:
    """Run until the end and exit with the supervisor's code."""
    code = asyncio.run(_run(Path(sys.argv[1])))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
