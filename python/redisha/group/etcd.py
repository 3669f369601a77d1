"""The arbiter of a group in etcd: one key, reached through etcd's JSON gateway.

The value is a JSON object with the attributes of a :class:`Record`; the version is the key's revision of modification.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Sequence
from dataclasses import asdict

from redisha.group.arbiter import ArbiterError, ConflictError, Record
from redisha.group.http import Answer, JsonClient, NoAnswerError, NotSentError, Request

RANGE = "/v3/kv/range"
TXN = "/v3/kv/txn"
AUTHENTICATE = "/v3/auth/authenticate"

UNAUTHENTICATED = 16
"""gRPC's number for a token that etcd does not know, any more or at all."""

STALE = ("etcdserver: user name is empty", "etcdserver: revision of auth store is old")
"""What etcd says instead when there was no token, or when users were changed after it was given."""


class EtcdArbiter:
    """A key in etcd.

    Args:
        endpoints: of the cluster's members, ``http://host:port``, ``https://host:port`` or ``host:port``; the one that
            worked last is asked first.
        key: its name.
        username: None where etcd has no users.
        password: None where etcd has no users.
        timeout: seconds for reading or writing, however many endpoints have to be tried.
        ca_file: PEM file of the authority of their certificates; None for the system's.

    Raises:
        ArbiterError: there is no endpoint, or one is no address.
    """

    def __init__(
        self,
        endpoints: Sequence[str],
        key: str,
        username: str | None = None,
        password: str | None = None,
        timeout: float = 2.0,
        ca_file: str | None = None,
    ) -> None:
        if not endpoints:
            raise ArbiterError("etcd has no endpoint: name at least one")
        self._clients = [JsonClient(endpoint, self._authorization, ca_file) for endpoint in endpoints]
        self._first = 0
        """Index of the endpoint to ask first."""
        self._key = key
        self._username = username or ""
        self._password = password
        self._timeout = timeout
        self._token = ""

    def __str__(self) -> str:
        """The key and where it is, for messages."""
        return f"key {self._key} in etcd at {', '.join(str(client) for client in self._clients)}"

    async def read(self) -> tuple[Record | None, str]:
        """See :meth:`Arbiter.read`."""
        answer = await self._ask(Request("POST", RANGE, {"key": _coded(self._key)}, changes=False))
        if answer.status != 200 or not isinstance(answer.body.get("header"), dict):
            raise self._refusal(answer)
        found = answer.body.get("kvs")
        if not found:
            return None, ""
        try:
            value = json.loads(base64.b64decode(found[0].get("value", "")))
            record = Record(int(value["term"]), str(value["leader"]), tuple(value["in_sync"]), int(value["beat"]))
            return record, str(int(found[0]["mod_revision"]))
        except (AttributeError, KeyError, TypeError, ValueError):
            raise ArbiterError(f"{self} holds something else than a group's record; name another key") from None

    async def write(self, record: Record, version: str) -> str:
        """See :meth:`Arbiter.write`."""
        key = _coded(self._key)
        body = {
            "compare": [{"key": key, "target": "MOD", "result": "EQUAL", "mod_revision": version or "0"}],
            "success": [{"request_put": {"key": key, "value": _coded(json.dumps(asdict(record)))}}],
        }
        answer = await self._ask(Request("POST", TXN, body))
        header = answer.body.get("header")
        if answer.status == 200 and isinstance(header, dict) and str(header.get("revision", "")).isdecimal():
            if answer.body.get("succeeded") is True:
                return str(header["revision"])
            raise ConflictError(f"{self} was changed by another")
        if answer.status < 300 or answer.uncertain:
            raise NoAnswerError(f"it is not known whether {self} was written: {_said(answer)}")
        raise self._refusal(answer)

    async def close(self) -> None:
        """See :meth:`Arbiter.close`."""
        await asyncio.gather(*(client.close() for client in self._clients))

    def _authorization(self) -> str:
        return self._token

    async def _ask(self, request: Request) -> Answer:
        """Ask with a token, where one is needed."""
        deadline = asyncio.get_running_loop().time() + self._timeout
        if self._password is not None and not self._token:
            await self._authenticate(deadline)
        answer = await self._anywhere(request, deadline)
        if self._password is not None and _wants_token(answer):
            # A token expires, and some are forgotten in a restart. etcd looks at it first: nothing was changed.
            await self._authenticate(deadline)
            answer = await self._anywhere(request, deadline)
        return answer

    async def _authenticate(self, deadline: float) -> None:
        self._token = ""
        body = {"name": self._username, "password": self._password}
        answer = await self._anywhere(Request("POST", AUTHENTICATE, body, changes=False), deadline)
        token = answer.body.get("token")
        if answer.status != 200 or not isinstance(token, str):
            raise ArbiterError(f"{self} does not let the user '{self._username}' in: {_said(answer)}")
        self._token = token

    async def _anywhere(self, request: Request, deadline: float) -> Answer:
        """Ask one endpoint after the other, until one answers.

        Args:
            request: what is asked for. A change that was sent is not sent to a second endpoint.
            deadline: by the event loop's clock. Each endpoint gets the same share of what is left until then.
        """
        clock = asyncio.get_running_loop().time
        count, first, problems = len(self._clients), self._first, []
        for step in range(count):
            left = max(0.001, deadline - clock())
            share = left / (count - step)
            index = (first + step) % count
            try:
                answer = await self._clients[index].ask(request, left if request.changes else share, share)
            except (NotSentError, NoAnswerError) as error:
                self._first = (index + 1) % count
                if request.changes and isinstance(error, NoAnswerError):
                    raise
                problems.append(str(error))
                continue
            if request.changes or not answer.uncertain:
                self._first = index
                return answer
            problems.append(f"{self._clients[index]} says {_said(answer)}")
        raise NotSentError("; ".join(problems)) if request.changes else ArbiterError("; ".join(problems))

    def _refusal(self, answer: Answer) -> ArbiterError:
        if _wants_token(answer) and self._password is not None:
            return ArbiterError(f"{self} refuses the token that '{self._username}' was just given ({_said(answer)})")
        if _wants_token(answer):
            return ArbiterError(f"{self} is only for users ({_said(answer)}); name one, and the password")
        if answer.status == 403:
            return ArbiterError(
                f"{self} is not for the user '{self._username}' ({_said(answer)}); grant a role of this user the "
                f"permission readwrite on it: etcdctl role grant-permission ROLE readwrite '{self._key}'"
            )
        if answer.status == 404:
            return ArbiterError(f"{self}: no etcd 3.4 or newer, or its gRPC gateway is off ({_said(answer)})")
        return ArbiterError(f"{self} cannot be had: {_said(answer)}")


def _coded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _message(answer: Answer) -> str:
    return str(answer.body.get("message") or answer.body.get("error") or "")


def _wants_token(answer: Answer) -> bool:
    return answer.status != 200 and (answer.body.get("code") == UNAUTHENTICATED or _message(answer) in STALE)


def _said(answer: Answer) -> str:
    return f"{answer.status}, {_message(answer) or answer.text[:200] or 'without a word'}"
