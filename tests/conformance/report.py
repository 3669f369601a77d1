"""The table and the verdict."""

import json
from dataclasses import asdict, dataclass, field

from conformance.expected import LeftOut
from conformance.unit import Result

DIRECT = "direct"
_LINE = 300
_LEGEND = (
    "passed / failed / not run / left out with a reason; "
    "`=` all Redis servers hold the same afterwards, `≠` they do not"
)


@dataclass
class Report:
    """The results of all units in all modes."""

    expected: list[LeftOut]
    results: dict[str, dict[str, Result]] = field(default_factory=dict)
    """unit → mode → result; ``direct`` first."""

    def add(self, unit: str, mode: str, result: Result) -> None:
        """Take a result."""
        self.results.setdefault(unit, {})[mode] = result

    def left_out(self, unit: str, mode: str) -> frozenset[str]:
        """The tests that ran directly and need not pass in a mode."""
        direct = self.results[unit][DIRECT]
        return frozenset(
            test
            for test in direct.passed | direct.failed.keys()
            if any(entry.has(mode, unit, test, direct.tags.get(test, ())) for entry in self.expected)
        )

    def lost(self, unit: str, mode: str) -> dict[str, str]:
        """Test that passes directly and not in this mode → the reason, without what need not pass."""
        mine, direct = self.results[unit][mode], self.results[unit][DIRECT]
        return {
            test: mine.failed.get(test) or f"not run: {mine.ended or 'the suite did not come to it'}"
            for test in sorted(direct.passed - mine.passed - self.left_out(unit, mode))
        }

    def not_run(self, unit: str, mode: str) -> int:
        """How many tests ran directly and not in this mode, the left out ones included."""
        mine, direct = self.results[unit][mode], self.results[unit][DIRECT]
        return len((direct.passed | direct.failed.keys()) - mine.passed - mine.failed.keys())

    def good(self) -> bool:
        """Whether each mode passes what passes directly, and leaves equal servers."""
        return not any(
            self.lost(unit, mode) or result.unequal
            for unit, modes in self.results.items()
            for mode, result in modes.items()
        )

    def markdown(self) -> str:
        """The table, and below it what is wrong, if anything is."""
        modes = list(dict.fromkeys(mode for found in self.results.values() for mode in found))
        lines = [f"| unit | {' | '.join(modes)} |", f"|---|{'--:|' * len(modes)}"]
        for unit, found in self.results.items():
            cells = (self._cell(unit, mode) if mode in found else "" for mode in modes)
            lines.append(f"| {unit} | {' | '.join(cells)} |")
        lines.append(f"| **all** | {' | '.join(self._sum(mode) for mode in modes)} |")
        lines += ["", _LEGEND, ""]
        return "\n".join([*lines, *self._faults()])

    def json(self) -> str:
        """Everything, with the reasons in full."""
        return json.dumps(asdict(self), indent=1, default=sorted)

    def _cell(self, unit: str, mode: str) -> str:
        result = self.results[unit][mode]
        return _figures(self._counts(unit, mode), [result.unequal])

    def _sum(self, mode: str) -> str:
        found = [unit for unit, modes in self.results.items() if mode in modes]
        counts = (sum(column) for column in zip(*(self._counts(unit, mode) for unit in found), strict=True))
        return _figures(tuple(counts), [self.results[unit][mode].unequal for unit in found])

    def _counts(self, unit: str, mode: str) -> tuple[int, ...]:
        result = self.results[unit][mode]
        not_run = self.not_run(unit, mode) - result.left_out
        return len(result.passed), len(result.failed), not_run, result.left_out

    def _faults(self) -> list[str]:
        lines = []
        for unit, modes in self.results.items():
            for mode, result in modes.items():
                lost = {} if mode == DIRECT else self.lost(unit, mode)
                faults = [f"- {test}: {_first(reason)}" for test, reason in lost.items()]
                faults += [f"- servers differ: {_first(result.unequal)}"] if result.unequal else []
                faults += [f"- ended early: {_first(result.ended)}"] if result.ended else []
                lines += [f"### {unit}, {mode}", "", *faults, ""] if faults else []
        return lines


def _figures(counts: tuple[int, ...], unequal: list[str | None]) -> str:
    sign = " ≠" if any(unequal) else " =" if any(each is not None for each in unequal) else ""
    return " / ".join(str(count) for count in (counts if counts[-1] else counts[:-1])) + sign


def _first(text: str) -> str:
    """What can be shown of a reason on one line."""
    flat = " ".join(text.split())
    return flat if len(flat) <= _LINE else f"{flat[:_LINE]} …"
