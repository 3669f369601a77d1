"""A report as lines of text. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from redisha.verify.facts import Facts
from redisha.verify.report import Counts, Difference, Report

_KEY_MOST = 100
_WORDS = {"different": "different", "only_a": "only on A", "only_b": "only on B"}


def lines(report: Report) -> Iterator[str]:
    """All that a reader should see of it."""
    yield f"A  {_server(report.a)}"
    yield f"B  {_server(report.b)}"
    yield ""
    yield from _table(report)
    yield ""
    if report.differences:
        yield from map(_difference, report.differences)
        if report.more:
            yield f"… and {report.more:,} more; --limit {len(report.differences) + report.more} lists all"
        yield ""
    yield from (f"note: {note}" for note in report.notes)
    yield from _in_flight(report.total)
    yield _sentence(report)


def _server(facts: Facts) -> str:
    role = f"replica of {facts.master}" if facts.role == "slave" else "primary"
    return f"{facts.address}  Redis {facts.version}, {role}"


def _table(report: Report) -> Iterator[str]:
    """The counts; the column of repaired keys only if something was to be repaired."""
    heads = ["", "keys on A", "keys on B", "same", "different", "only on A", "only on B"]
    heads += [*(["in flight"] if report.total.in_flight else []), *(["repaired"] if report.repair else []), "Sync"]
    rows = [_row(f"database {number}", counts, heads) for number, counts in sorted(report.databases.items())]
    if len(rows) != 1:
        rows.append(_row("all", report.total, heads))
    if report.functions is not None and report.functions.keys:
        rows.append(_row("functions", report.functions, heads))
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    for row in (heads, *rows):
        yield _aligned(row, widths)


def _row(name: str, counts: Counts, heads: Sequence[str]) -> list[str]:
    cells = {
        "": name,
        "keys on A": f"{counts.keys_a:,}",
        "keys on B": f"{counts.keys_b:,}",
        "same": f"{counts.same:,}",
        "different": f"{counts.different:,}",
        "only on A": f"{counts.only_a:,}",
        "only on B": f"{counts.only_b:,}",
        "in flight": f"{counts.in_flight:,}",
        "repaired": f"{counts.repaired:,}",
        "Sync": percent(counts),
    }
    return [cells[head] for head in heads]


def percent(counts: Counts) -> str:
    """``100 %`` only if nothing differs."""
    return f"{counts.sync:.2f} %" if counts.remaining else "100 %"


def _aligned(row: Sequence[str], widths: Sequence[int]) -> str:
    first, *others = zip(row, widths, strict=True)
    return "   ".join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]).rstrip()


def _difference(each: Difference) -> str:
    where = "library" if each.database is None else f"database {each.database}, key"
    key = each.text if each.text.isprintable() else repr(each.key)[2:-1]
    key = key if len(key) <= _KEY_MOST else key[:_KEY_MOST] + "…"
    end = " → repaired" if each.repaired else f" → not repaired: {each.error}" if each.error else ""
    return f"{_WORDS[each.what]}: {where} {key} ({each.detail}){end}"


def _in_flight(total: Counts) -> Iterator[str]:
    if total.in_flight:
        yield (
            f"note: {_keys(total.in_flight)} changed on both servers whenever looked at: of these nothing can be said; "
            "more --passes may help"
        )


def _sentence(report: Report) -> str:
    total = report.total
    looked = "looked at" if report.sampled else "compared"
    speed = f", {total.keys / report.seconds:,.0f} a second" if report.seconds and total.keys else ""
    facts = f"{_keys(total.keys)} {looked} in {report.seconds:.1f} s{speed}"
    found = total.repaired + (report.functions.repaired if report.functions else 0)
    if report.equal:
        return f"equal now, {found:,} repaired: {facts}" if found else f"equal: {facts}"
    functions = report.functions.remaining if report.functions else 0
    what = [_keys(total.remaining)] if total.remaining else []
    what += [f"{functions:,} librar{'y' if functions == 1 else 'ies'} of functions"] if functions else []
    return f"different: {' and '.join(what)}; {facts}"


def _keys(count: int) -> str:
    return f"{count:,} key{'' if count == 1 else 's'}"
