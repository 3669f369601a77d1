"""An HTTP server that speaks the part of the Kubernetes API that has to do with Leases.

It keeps what the real one keeps: one counter of versions for all objects, a PUT that makes what is not there unless its
uid says otherwise, Status objects for all that is refused, and the rules for a Lease's fields.
"""

import copy
import json
import re
import uuid
from pathlib import Path
from typing import Any

from support.http_api import HttpApi

_PATH = re.compile(r"/apis/coordination\.k8s\.io/v1/namespaces/([a-z0-9-]+)/leases(?:/([a-z0-9.-]+))?")
_MICRO_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
_ANNOTATION = re.compile(r"([a-z0-9.-]+/)?[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")
_VERBS = {"GET": "get", "POST": "create", "PUT": "update"}
_NAMESPACE = "shop"


class Refused(Exception):  # noqa: N818 - an answer, not a failure
    """An answer that is a Status object."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason


class LeaseApi(HttpApi):
    """Has the namespace ``shop``, empty.

    Attributes:
        leases: the objects, by name; a test may change them.
        token: that it wants; None for none.
        verbs: that the token's account may use.
    """

    def __init__(self, certificate: Path | None = None) -> None:
        """Listen; with TLS if there is a PEM file with a key and a certificate."""
        self.leases: dict[str, dict[str, Any]] = {}
        self.token: str | None = None
        self.verbs = {"get", "create", "update"}
        self._version = 1000
        super().__init__(certificate)

    def carry_out(self, method: str, path: str, authorization: str, data: bytes) -> tuple[int, str]:
        """What the API does, or why it does not."""
        try:
            code, found = self._carried_out(method, path, authorization, data)
        except Refused as refused:
            code = refused.code
            found = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code}
            found |= {"reason": refused.reason, "message": str(refused)}
        return code, json.dumps(found)

    def _carried_out(self, method: str, path: str, authorization: str, data: bytes) -> tuple[int, dict[str, Any]]:
        if self.token is not None and authorization != f"Bearer {self.token}":
            raise Refused(401, "Unauthorized", "Unauthorized")
        match = _PATH.fullmatch(path)
        if match is None:
            raise Refused(404, "NotFound", "the server could not find the requested resource")
        namespace, name = match.groups()
        if _VERBS[method] not in self.verbs:
            raise Refused(403, "Forbidden", f'leases is forbidden: User "x" cannot {_VERBS[method]} resource "leases"')
        if method == "GET":
            if namespace != _NAMESPACE or name not in self.leases:
                raise Refused(404, "NotFound", f'leases.coordination.k8s.io "{name}" not found')
            return 200, self.leases[name]
        given = json.loads(data)
        _check(given, namespace, name or given["metadata"]["name"])
        if namespace != _NAMESPACE:
            raise Refused(404, "NotFound", f'namespaces "{namespace}" not found')
        return self._create(given) if method == "POST" else self._update(name, given)

    def _create(self, given: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        name = given["metadata"]["name"]
        if name in self.leases:
            raise Refused(409, "AlreadyExists", f'leases.coordination.k8s.io "{name}" already exists')
        return 201, self._stored(name, given, str(uuid.uuid4()))

    def _update(self, name: str, given: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        old = self.leases.get(name, {"metadata": {}})["metadata"]
        uid, version = (given["metadata"].get(each) for each in ("uid", "resourceVersion"))
        if uid and uid != old.get("uid"):
            raise Refused(409, "Conflict", f"Precondition failed: UID in precondition: {uid}")
        if not old:
            return self._create(given)
        if version and version != old["resourceVersion"]:
            raise Refused(409, "Conflict", "the object has been modified")
        return 200, self._stored(name, given, old["uid"])

    def _stored(self, name: str, given: dict[str, Any], uid: str) -> dict[str, Any]:
        self._version += 1
        lease = copy.deepcopy(given)
        lease["metadata"] |= {"uid": uid, "resourceVersion": str(self._version)}
        lease["metadata"]["managedFields"] = [{"manager": "redisha"}]
        self.leases[name] = lease
        return lease


def _check(lease: dict[str, Any], namespace: str, name: str) -> None:
    """Refuse what the real one refuses."""
    metadata, spec = lease["metadata"], lease["spec"]
    fine = (
        (lease["apiVersion"], lease["kind"]) == ("coordination.k8s.io/v1", "Lease")
        and (metadata["namespace"], metadata["name"]) == (namespace, name)
        and all(_ANNOTATION.fullmatch(key) and isinstance(value, str) for key, value in metadata["annotations"].items())
        and isinstance(spec["holderIdentity"], str)
        and 0 < spec["leaseDurationSeconds"] < 1 << 31
        and 0 <= spec["leaseTransitions"] < 1 << 31
        and _MICRO_TIME.fullmatch(spec["renewTime"])
    )
    if not fine:
        raise Refused(422, "Invalid", f'Lease.coordination.k8s.io "{name}" is invalid')
