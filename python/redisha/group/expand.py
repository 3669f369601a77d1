"""A configuration with a group as the rest of the control plane reads it: with a cluster and routes like any other.

The member's own Redis becomes a cluster that has the group's name, and the listeners of the group lead to it. What
makes it a group (the other members, the peer port, the consistency) the plan takes from the section itself.
"""

from __future__ import annotations

import os

from redisha.config.model import Cluster, Config, Route


def expand(config: Config) -> Config:
    """The same configuration, with the member's own Redis as a cluster; unchanged where there is no group."""
    group = config.group
    if group is None:
        return config
    own = Cluster.model_construct(  # of values that were checked
        endpoints=(group.redis,),
        discovery="strict_dns",
        balance="maglev",
        dns_refresh=group.dns_refresh,
        respect_dns_ttl=False,
        connect_timeout=group.connect_timeout,
        op_timeout=group.op_timeout,
        hash_tags=False,
        auth=group.auth,
        health=group.health,
    )
    listeners = tuple(
        each.model_copy(update={"routes": (Route(prefix="", cluster=group.name),)}) if each.group is not None else each
        for each in config.listeners
    )
    if group.member is None:
        group = group.model_copy(update={"member": os.uname().nodename})
    return config.model_copy(
        update={"listeners": listeners, "group": group, "clusters": {**config.clusters, group.name: own}}
    )
