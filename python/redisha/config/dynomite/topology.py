"""Whether the nodes of a Dynomite file are full copies of each other, which is what the members of a group are.

In Dynomite every rack has a ring of its own: the nodes of a rack divide the keys by their tokens, and two nodes of two
racks that have the same tokens hold the same keys.
"""

from collections.abc import Sequence

from redisha.config.dynomite.lines import Place, Seed
from redisha.config.tree import Item, Report

_SPLIT = "make one group for each part of the ring: the nodes with the same tokens, each in a rack of its own"


def check(here: Place, seeds: Sequence[tuple[Item, Seed]], report: Report) -> None:
    """Add every seed that is no full copy of this node, or that cannot be told apart from another node."""
    if seeds and not here.tokens:
        tokens = ",".join(map(str, seeds[0][1].place.tokens))
        report.error(seeds[0][0], "this node has no tokens, and a seed has", f"write tokens: '{tokens}'")
        return
    seen = {here.member: ("this node itself", "")}
    told_datacenter = False
    for item, seed in seeds:
        place = seed.place
        same_rack = (place.datacenter, place.rack) == (here.datacenter, here.rack)
        if set(place.tokens) != set(here.tokens):
            _tell_tokens(item, here, place, report, same_rack=same_rack)
        elif place.member in seen and seen[place.member][1] != seed.address:  # the same address twice is told anyway
            report.error(
                item,
                f"the node has the datacenter, the rack and the token of {seen[place.member][0]}: Dynomite takes them "
                "for one node, and so would a group",
                "remove the line if it is the same node, otherwise give it a rack of its own",
            )
        seen.setdefault(place.member, (f"the node in line {item.line}", seed.address))
        if place.datacenter != here.datacenter and not told_datacenter:
            told_datacenter = True
            report.warn(
                item,
                f"the datacenters '{here.datacenter}' and '{place.datacenter}' are one group: one leader orders the "
                "writes of both, and all members count alike when a write is acknowledged; Dynomite waits for its own "
                "datacenter only",
            )


def _tell_tokens(item: Item, here: Place, place: Place, report: Report, *, same_rack: bool) -> None:
    mine, other = (",".join(map(str, tokens)) for tokens in (here.tokens, place.tokens))
    if same_rack:
        report.error(
            item,
            f"this node (tokens {mine}) and this seed (tokens {other}) divide the keys of the rack '{here.rack}' among "
            "them: that is not supported yet, the members of a group are full copies of each other",
            _SPLIT,
        )
    else:
        report.error(
            item,
            f"this seed has the tokens {other} and this node {mine}: nodes of two racks are full copies of each other "
            "only if their tokens are the same; to divide the keys of a rack is not supported yet",
            f"if every rack has one node, give all nodes the same tokens; otherwise {_SPLIT}",
        )
