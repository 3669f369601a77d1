"""The front page and the list of paths. Pure; no script, nothing from elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from redisha.admin import Snapshot, members
from redisha.admin import replicas as mirrors
from redisha.admin.members import Member
from redisha.core import ReplicaStats
from redisha.group.status import Role

STYLE = """
:root { color-scheme: light dark }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 62rem; padding: 0 1rem }
h1 { font-size: 1.3rem } h2 { font-size: 1rem; margin-top: 2rem }
table { border-collapse: collapse; width: 100% }
th, td { border-bottom: 1px solid #8884; padding: .3rem .6rem .3rem 0; text-align: left; vertical-align: top }
th { font-weight: 600 } code { font-size: .95em }
progress { width: 8rem; vertical-align: middle } ul { margin: .2rem 0; padding-left: 1.2rem }
.good { color: #2a8a3a } .bad { color: #c8452f }
"""

Paths = Iterable[tuple[str, str, str]]
"""(method, path, help) of each path."""


def listing(paths: Paths) -> str:
    """The paths as text, one per line."""
    rows = [(f"{method} {path}", text) for method, path, text in paths]
    width = max(len(left) for left, _ in rows)
    return "".join(f"{left:<{width}}  {text}\n" for left, text in rows)


def front(snapshot: Snapshot, info: Mapping[str, Any], paths: Paths) -> str:
    """The front page: how it goes, the endpoints, the replicas, and a link to every path."""
    state = _mark(str(snapshot.state) if not snapshot.missing else "not ready", good=not snapshot.missing)
    endpoints = [
        (
            escape(each.cluster),
            f"<code>{escape(each.id)}</code>",
            f"<code>{escape(each.address)}</code>",
            _mark(each.state, good=each.ready) + (f" {escape(each.reason)}" if each.reason else ""),
            escape(each.version),
            str(each.upstream_rq_total),
        )
        for each in snapshot.stats.endpoints
    ]
    # A member's replica is shown with the member.
    told = [each for each in snapshot.stats.replicas if not mirrors.member_of(snapshot, each)]
    replicas = [_replica_row(snapshot, each) for each in told]
    refills = [
        (
            f"<code>{escape(each['primary'])}</code>",
            f"<code>{escape(each['mirror'])}</code>",
            _mark(each["state"], good=each["state"] in ("running", "done")) + f" {escape(each['error'])}",
            _bar(each),
        )
        for each in mirrors.refill_documents(snapshot)
    ]
    parts = [
        f"<h1>redisha {escape(str(info.get('version', '')))} {state}</h1>",
        "".join(f"<p class=bad>{escape(text)}</p>" for text in snapshot.missing),
        _table("Listeners", ("name", "address"), [(escape(name), escape(at)) for name, at in snapshot.listeners]),
        _table("Endpoints", ("cluster", "endpoint", "address", "state", "version", "commands"), endpoints),
        *_group(snapshot),
        _table("Replicas", ("primary", "mirror", "state", "resync", "lag", "to repair", "last healed"), replicas),
        _table("Refills", ("primary", "from its mirror", "state", ""), refills),
        _table("Paths", ("", "path", ""), [_path_row(*each) for each in paths]),
    ]
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><title>redisha</title>"
        f"<meta name=viewport content='width=device-width'><style>{STYLE}</style>{''.join(parts)}</html>\n"
    )


def _group(snapshot: Snapshot) -> list[str]:
    """The group in a line, and its members."""
    group = snapshot.group
    if group is None:
        return []
    leads = members.leader(snapshot)
    text = f"{leads} leads, term {group.me.term}" if leads else f"nobody leads: {snapshot.leaderless}"
    heads = ("member", "role", "state", "term", "lag: commands", "bytes", "ms", "last heard", "resync")
    rows = [_member_row(each, is_me=not number) for number, each in enumerate(members.members(snapshot))]
    return [_table(f"Group {escape(group.name)}", heads, rows), f"<p>{_mark(text, good=bool(leads))}</p>"]


def _member_row(member: Member, *, is_me: bool) -> tuple[str, ...]:
    progress = mirrors.progress(member.replica) if member.replica is not None else None
    heard = "" if member.silent_ms is None else f"{member.silent_ms / 1000:.1f} s ago"
    return (
        f"<code>{escape(member.name)}</code>{' (this one)' if is_me else ''}",
        str(member.status.role) if member.up and member.status.role is not Role.NONE else "",
        _mark(member.state, good=member.in_sync) + (f" {escape(member.reason)}" if member.reason else ""),
        str(member.status.term),
        *("" if each is None else f"{each:,}" for each in (member.lag, member.lag_bytes, member.lag_ms)),
        "" if is_me else heard or "never",
        _bar(progress) if progress is not None else escape(member.replica.healed if member.replica else ""),
    )


def _replica_row(snapshot: Snapshot, replica: ReplicaStats) -> tuple[str, ...]:
    progress = mirrors.progress(replica)
    notes = "".join(f"<li class=bad>{escape(text)}</li>" for text in mirrors.warnings(snapshot, replica))
    return (
        f"<code>{escape(replica.primary)}</code>",
        f"<code>{escape(replica.mirror)}</code>",
        _mark(replica.state, good=replica.in_sync or not replica.is_copy)
        + (f" {escape(replica.reason)}" if replica.reason else "")
        + (f"<ul>{notes}</ul>" if notes else ""),
        f"{escape(replica.resync)} {_bar(progress)}" if progress is not None else "",
        str(replica.lag),
        str(replica.repair_keys),
        escape(replica.healed),
    )


def _bar(progress: Mapping[str, Any]) -> str:
    """How far something is, as a bar and in numbers."""
    done, total = int(progress["done"]), int(progress["total"])
    known = f"<progress value={min(done, total)} max={total}></progress> {progress['percent']} %, " if total else ""
    eta = f", {progress['eta_s']} s to go" if progress["eta_s"] is not None else ""
    return f"{known}{done:,}{f' of {total:,}' if total else ''} keys{eta}"


def _path_row(method: str, path: str, text: str) -> tuple[str, str, str]:
    shown = f"<a href='{path}'>{path}</a>" if method == "GET" else f"<code>{path}</code>"
    return method, shown, escape(text)


def _mark(text: str, *, good: bool) -> str:
    return f"<span class={'good' if good else 'bad'}>{escape(text)}</span>"


def _table(title: str, heads: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    if not rows:
        return ""
    head = "".join(f"<th>{each}</th>" for each in heads)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<h2>{title}</h2><table><tr>{head}</tr>{body}</table>"
