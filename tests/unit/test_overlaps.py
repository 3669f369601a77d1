"""Routes that meet in one Redis are told; no circle of mirrors is a loop."""

import pytest

from redisha.config.load import parse

CLUSTERS = "clusters: {a: {endpoints: h1:1}, b: {endpoints: h2:1}, c: {endpoints: h3:1}, d: {endpoints: h4:1}}\n"


def overlaps(*listeners: str) -> list[str]:
    bound = [f" - {{bind: 0.0.0.0:{number}, routes: [{routes}]}}\n" for number, routes in enumerate(listeners, 1)]
    warnings = parse("listeners:\n" + "".join(bound) + CLUSTERS, "f.yaml", {}).warnings
    return [f"{each.line}: {each.message}" for each in warnings if "no route leads" not in each.message]


A_TO_B, B_TO_A = "{cluster: a, mirrors: [{cluster: b}]}", "{cluster: b, mirrors: [{cluster: a}]}"


@pytest.mark.parametrize(
    ("listeners", "warnings"),
    [
        ([A_TO_B], []),
        (["{cluster: a, mirrors: [{cluster: b}, {cluster: c}]}"], []),
        ([A_TO_B, A_TO_B], []),
        ([A_TO_B, "{cluster: a}"], []),
        ([A_TO_B, B_TO_A], ["3: 'b' and 'a' mirror the same keys to each other (in line 2)"]),
        ([A_TO_B, "{cluster: b}"], ["2: 'b' is a mirror of 'a' and takes writes of the same keys itself (in line 3)"]),
        (
            [A_TO_B, "{cluster: b, mirrors: [{cluster: c}, {cluster: d}]}"],
            [
                "2: 'b' is a mirror of 'a' and takes writes of the same keys itself (in line 3): what it gets as a "
                "mirror may overwrite them, and is not sent on to c and d"
            ],
        ),
        (
            [A_TO_B, "{cluster: c, mirrors: [{cluster: b}]}"],
            ["2: 'b' is a mirror of 'a' and of 'c' (in line 3) for the same keys"],
        ),
        # Prefixes that keep them apart, and some that do not.
        (["{prefix: x, cluster: a, mirrors: [{cluster: b}]}, {prefix: y, cluster: b, mirrors: [{cluster: a}]}"], []),
        (["{prefix: x, cluster: a, mirrors: [{cluster: b}]}, {prefix: xy, cluster: b}, {cluster: c}"], []),
        (["{prefix: x, cluster: a, mirrors: [{cluster: b}]}", "{prefix: y, cluster: b}"], []),
        (
            ["{prefix: x, cluster: a, mirrors: [{cluster: b}]}", "{prefix: xy, cluster: b}"],
            ["2: 'b' is a mirror of 'a' and"],
        ),
        (
            ["{prefix: x, remove_prefix: true, cluster: a, mirrors: [{cluster: b}]}, {prefix: y, cluster: b}"],
            ["2: 'b' is a mirror of 'a' and"],
        ),
    ],
)
def test_routes_that_meet_in_one_redis(listeners: list[str], warnings: list[str]) -> None:
    found = overlaps(*listeners)
    assert len(found) == len(warnings), found
    assert all(line.startswith(warning) for line, warning in zip(found, warnings, strict=True)), found


def test_the_short_form_of_a_route_meets_too() -> None:
    text = f"listeners: [{{bind: 0.0.0.0:1, routes: [{A_TO_B}]}}, {{bind: 0.0.0.0:2, catch_all: b}}]\n{CLUSTERS}"
    assert "takes writes of the same keys itself" in str(parse(text, "f.yaml", {}).warnings[0])
