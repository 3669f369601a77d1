"""The paths of the group: ``GET /group`` and ``POST /leader``."""

from __future__ import annotations

import json
from http import HTTPStatus

from redisha.admin import NotHandedOverError, UnknownMemberError, View, members
from redisha.admin.app import Request, Response, json_answer

LEADER_QUERY = "?member=NAME"

NO_GROUP = "this sidecar is in no group\n"


def group(view: View, request: Request) -> Response:
    """Who leads, in which term, and how each member is."""
    document = members.document(view.snapshot())
    return json_answer(document) if document is not None else Response(NO_GROUP, HTTPStatus.NOT_FOUND)


async def leader(view: View, request: Request) -> Response:
    """Hand the leadership over: 200 and who leads now, 202 while it goes on, 409 and why it was not done."""
    try:
        member = _wanted(request)
    except ValueError as error:
        return Response(f"{error}\n", HTTPStatus.BAD_REQUEST)
    if not member:
        return Response(f"say who: POST /leader{LEADER_QUERY}\n", HTTPStatus.BAD_REQUEST)
    try:
        status, leads = HTTPStatus.OK, await view.hand_over(member)
    except UnknownMemberError as error:
        return Response(f"{error}\n", HTTPStatus.NOT_FOUND)
    except NotHandedOverError as error:
        return Response(f"{error}\n", HTTPStatus.CONFLICT)
    except TimeoutError:
        status, leads = HTTPStatus.ACCEPTED, ""
    seen = view.snapshot()
    term = seen.group.me.term if seen.group is not None else 0
    return json_answer({"leader": leads or members.leader(seen), "wanted": member, "term": term}, status)


def _wanted(request: Request) -> str:
    """The member of ``?member=NAME``, or of the body ``{"member": "NAME"}``; empty: none is named.

    Raises:
        ValueError: the body is none of that kind.
    """
    if "member" in request.query or not request.body.strip():
        return request.query.get("member", "")
    try:
        document = json.loads(request.body)
    except ValueError:
        document = None
    if not isinstance(document, dict) or not isinstance(document.get("member"), str):
        raise ValueError('the body is no JSON of the form {"member": "NAME"}')  # noqa: TRY004 - one error for all forms
    return str(document["member"])
