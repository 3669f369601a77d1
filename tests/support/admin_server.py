"""An admin server in a thread of its own, which shows what a test wants."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from redisha.admin import View
from redisha.admin.api import Api
from redisha.admin.app import AdminServer


@contextmanager
def serving(view: View) -> Iterator[str]:
    """The address of an admin server that shows the view."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    server = AdminServer(Api(view))
    yield asyncio.run_coroutine_threadsafe(server.start("127.0.0.1:0"), loop).result(5)
    asyncio.run_coroutine_threadsafe(server.close(), loop).result(5)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(5)
    loop.close()
