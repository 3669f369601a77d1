"""The arbiter of a group in Kubernetes: one Lease object.

The annotations say what counts; the Lease's own fields say the same for ``kubectl get lease``, as far as they can. A
Lease that was made by hand, without our annotations and without a holder, counts as an empty record.
"""

from __future__ import annotations

import math
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from redisha.group.arbiter import ArbiterError, ConflictError, Record
from redisha.group.http import Answer, JsonClient, NoAnswerError, NotSentError, Request

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where a pod finds the token, the authority and the namespace of its service account."""

API = "coordination.k8s.io/v1"

TERM = "redisha/term"
IN_SYNC = "redisha/in-sync"
BEAT = "redisha/beat"

MOST_TRANSITIONS = (1 << 31) - 1
"""What fits into ``leaseTransitions``; the annotation has any term."""


class KubernetesArbiter:
    """A Lease.

    Args:
        lease: its name. It is made when it is first written.
        namespace: where it is; None for the pod's own.
        server: URL of the API server; None for the one of the cluster this pod runs in.
        token_file: file of the token, read anew for each request, because it is replaced from time to time; None for
            the service account's, or for no token if a server is named: that one is not given a token unasked.
        ca_file: PEM file of the authority of the server's certificate; None for the service account's, or for the
            system's if a server is named.
        timeout: seconds for each request.
        lease_seconds: how long a leader that does not renew is waited for; for the reader, rounded up.

    Raises:
        ArbiterError: a value is missing that only a pod knows by itself, or the server is no URL.
    """

    def __init__(
        self,
        lease: str,
        namespace: str | None = None,
        server: str | None = None,
        token_file: str | None = None,
        ca_file: str | None = None,
        timeout: float = 2.0,
        lease_seconds: float = 1.0,
    ) -> None:
        if server is None:
            server = _own_server()
            token_file = token_file or str(SERVICE_ACCOUNT / "token")
            ca_file = ca_file or str(SERVICE_ACCOUNT / "ca.crt")
        self._name = lease
        self._namespace = namespace or _own_namespace()
        self._token_file = token_file
        self._timeout = timeout
        self._seconds = max(1, math.ceil(lease_seconds))
        self._client = JsonClient(server, self._authorization, ca_file)
        self._all = f"/apis/{API}/namespaces/{quote(self._namespace, safe='')}/leases"
        self._one = f"{self._all}/{quote(lease, safe='')}"
        self._metadata: dict[str, Any] = {}
        """What the Lease had besides our own when it was last seen: its uid, labels, owners."""

    def __str__(self) -> str:
        """The Lease and the server, for messages."""
        return f"lease {self._namespace}/{self._name} at {self._client}"

    async def read(self) -> tuple[Record | None, str]:
        """See :meth:`Arbiter.read`."""
        answer = await self._client.ask(Request("GET", self._one, changes=False), self._timeout)
        if _not_found(answer):
            return None, ""
        version = self._seen(answer) if answer.status == 200 and answer.body.get("kind") == "Lease" else ""
        if not version:
            raise self._refusal(answer)
        return self._record(answer.body), version

    async def write(self, record: Record, version: str) -> str:
        """See :meth:`Arbiter.write`."""
        if not version:
            request = Request("POST", self._all, self._lease(record, {}))
        else:
            if self._metadata.get("resourceVersion") != version:
                await self.read()
            if self._metadata.get("resourceVersion") != version:
                raise ConflictError(f"{self} was changed by another")
            # With the uid in it: a PUT to a Lease that was deleted meanwhile would make it anew, whatever its version.
            request = Request("PUT", self._one, self._lease(record, self._metadata))
        answer = await self._client.ask(request, self._timeout)
        if answer.status == 409 or (version and _not_found(answer)):
            raise ConflictError(f"{self} was changed by another")
        written = self._seen(answer) if answer.status in (200, 201) else ""
        if written:
            return written
        if answer.status < 300 or answer.uncertain:
            raise NoAnswerError(f"it is not known whether {self} was written: {_said(answer)}")
        raise self._refusal(answer)

    async def close(self) -> None:
        """See :meth:`Arbiter.close`."""
        await self._client.close()

    def _authorization(self) -> str:
        if self._token_file is None:
            return ""
        try:
            token = Path(self._token_file).read_text().strip()
        except (OSError, ValueError) as error:
            raise NotSentError(f"the token {self._token_file} cannot be read: {error}") from None
        return f"Bearer {token}"

    def _seen(self, answer: Answer) -> str:
        """Remember what else the Lease has; gives its version, empty if it has none."""
        found = answer.body.get("metadata")
        self._metadata = {name: value for name, value in (found or {}).items() if name != "managedFields"}
        return str(self._metadata.get("resourceVersion", ""))

    def _lease(self, record: Record, metadata: dict[str, Any]) -> dict[str, Any]:
        annotations = dict(metadata.get("annotations") or {})
        annotations |= {TERM: str(record.term), IN_SYNC: _joined(record.in_sync), BEAT: str(record.beat)}
        return {
            "apiVersion": API,
            "kind": "Lease",
            "metadata": {**metadata, "name": self._name, "namespace": self._namespace, "annotations": annotations},
            "spec": {
                "holderIdentity": record.leader,
                "leaseTransitions": min(record.term, MOST_TRANSITIONS),
                "leaseDurationSeconds": self._seconds,
                "renewTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            },
        }

    def _record(self, lease: dict[str, Any]) -> Record | None:
        annotations = self._metadata.get("annotations") or {}
        holder = (lease.get("spec") or {}).get("holderIdentity") or ""
        if not any(name in annotations for name in (TERM, IN_SYNC, BEAT)):
            if not holder:
                return None
            raise ArbiterError(f"{self} is held by '{holder}' and is no group's; name another lease")
        try:
            return Record(int(annotations[TERM]), holder, _split(annotations[IN_SYNC]), int(annotations[BEAT]))
        except (KeyError, ValueError):
            raise ArbiterError(
                f"{self} was changed by hand: its annotations {TERM}, {IN_SYNC} and {BEAT} are no record"
            ) from None

    def _refusal(self, answer: Answer) -> ArbiterError:
        if answer.status in (401, 403):
            what = "does not know the token" if answer.status == 401 else "forbids it"
            return ArbiterError(
                f"{self}: the API server {what} ({_said(answer)}); the pod's service account needs a role that lets it "
                f"get, create and update leases of coordination.k8s.io in the namespace {self._namespace}, as in "
                "deploy/kubernetes/lease-rbac.yaml"
            )
        if _not_found(answer):
            return ArbiterError(f"{self} cannot be made: {_said(answer)}; is there such a namespace?")
        return ArbiterError(f"{self} cannot be had: {_said(answer)}")


def _own_server() -> str:
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST", ""), os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    if not host:
        raise ArbiterError("this is no pod of Kubernetes (KUBERNETES_SERVICE_HOST is not set): name the API server")
    return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"


def _own_namespace() -> str:
    try:
        return (SERVICE_ACCOUNT / "namespace").read_text().strip()
    except OSError:
        raise ArbiterError(f"there is no {SERVICE_ACCOUNT / 'namespace'}: name the lease's namespace") from None


def _joined(names: tuple[str, ...]) -> str:
    """Names, none of them empty, with commas between them; a name's own ``,`` and ``%`` are written as in a URL."""
    return ",".join(name.replace("%", "%25").replace(",", "%2C") for name in names)


def _split(text: str) -> tuple[str, ...]:
    return tuple(unquote(name) for name in text.split(",")) if text else ()


def _not_found(answer: Answer) -> bool:
    """Whether Kubernetes itself says so, and not some other server that has no such page."""
    return answer.status == 404 and answer.body.get("kind") == "Status" and answer.body.get("reason") == "NotFound"


def _said(answer: Answer) -> str:
    return f"{answer.status}, {answer.body.get('message') or answer.text[:200] or 'without a word'}"
