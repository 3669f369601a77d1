"""Where a Dynomite file says that the other nodes are: in itself, or in the DNS."""

from collections.abc import Mapping
from dataclasses import dataclass

from redisha.config.dynomite.directives import Pool
from redisha.config.dynomite.lines import Seed, parse_seed
from redisha.config.scalars import ScalarError
from redisha.config.tree import Item, suggest

_PROVIDERS = ("simple_provider", "dns_provider", "florida_provider")

_FLORIDA = (
    "list the other nodes in dyn_seeds (host:port:rack:datacenter:tokens) and write dyn_seed_provider: simple_provider"
)


@dataclass(frozen=True, slots=True)
class Peers:
    """The other nodes.

    Attributes:
        item: Their addresses as a native list.
        seeds: Those that the file itself tells, with their lines.
        named: Whether the file names any, rightly or not.
        complete: Whether it tells them all itself.
    """

    item: Item
    seeds: tuple[tuple[Item, Seed], ...]
    named: bool
    complete: bool


def read_peers(pool: Pool, env: Mapping[str, str]) -> Peers:
    """The other nodes that a pool names.

    Args:
        pool: The pool; what is wrong is added to its report.
        env: The environment, in which ``dns_provider`` finds its name.
    """
    lines = pool.texts("dyn_seeds")
    seeds: list[tuple[Item, Seed]] = []
    for line in lines:
        try:
            seeds.append((line, parse_seed(str(line.value))))
        except ScalarError as error:
            pool.report.error(line, error.message, error.hint)
    addresses = [line.with_value(seed.address) for line, seed in seeds]
    place = pool.item.get("dyn_seeds") or pool.item
    provider = pool.text("dyn_seed_provider")
    if provider is None or provider.text == "simple_provider":
        return Peers(place.with_value(list(addresses)), tuple(seeds), named=bool(lines), complete=True)
    if provider.text == "dns_provider":
        if (name := _dns_name(provider, pool, env)) is not None:
            addresses.append(name)
            place = place if lines else provider
    elif provider.text == "florida_provider":
        pool.report.error(provider, "a server that tells the seeds (Florida) is not supported", _FLORIDA)
    else:
        known = suggest(str(provider.text), _PROVIDERS)
        pool.report.error(provider, f"there is no seed provider '{provider.text}'", known)
    return Peers(place.with_value(list(addresses)), tuple(seeds), named=True, complete=False)


def _dns_name(provider: Item, pool: Pool, env: Mapping[str, str]) -> Item | None:
    """The name whose addresses are the nodes, with the port that this node has too."""
    name, kind = env.get("DYNOMITE_DNS_NAME", ""), env.get("DYNOMITE_DNS_TYPE", "")
    if kind != "A" or not name:
        pool.report.error(
            provider,
            "seeds in a TXT record are not supported, only a name with an address (A) for each node"
            if kind != "A"
            else "the environment variable DYNOMITE_DNS_NAME is not set",
            "set DYNOMITE_DNS_TYPE=A, and DYNOMITE_DNS_NAME to such a name (of a headless service)",
        )
        return None
    listen = pool.item.get("dyn_listen")
    port = str(listen.value).rpartition(":")[2] if listen is not None else "8101"
    pool.report.warn(
        provider,
        f"every address of {name} is taken for a node that is a full copy of this one, with the peer port {port}",
        "give every node a rack of its own: datacenter, rack and token are its name in the group",
    )
    return provider.with_value(f"{name}:{port}")
