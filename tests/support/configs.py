"""The configurations most tests use, as dictionaries in the native form.

``{port}``, ``{port2}`` … and ``{admin}`` are filled in by the sidecar fixture with free ports.
"""

from typing import Any

Config = dict[str, Any]


def cluster(address: str, **settings: Any) -> Config:
    """A cluster of one endpoint."""
    return {"endpoints": [address], "discovery": "static", "connect_timeout": "250ms", "op_timeout": "5s"} | settings


def _config(routes: list[Config], clusters: dict[str, Config]) -> Config:
    return {
        "admin": {"bind": "127.0.0.1:{admin}"},
        "listeners": [{"name": "redis_listener", "bind": ["127.0.0.1:{port}"], "routes": routes}],
        "clusters": clusters,
    }


def pass_through(address: str, **settings: Any) -> Config:
    """One cluster, no mirror. ``settings`` are the cluster's."""
    return _config([{"prefix": "", "cluster": "redis-001"}], {"redis-001": cluster(address, **settings)})


def mirrored(primary: str, mirror: str, *, mirror_settings: Config | None = None, **settings: Any) -> Config:
    """One cluster and its mirror. ``settings`` are the primary's."""
    return _config(
        [{"prefix": "", "cluster": "redis-001", "mirrors": [{"cluster": "redis-002", "reads": "exclude"}]}],
        {
            "redis-001": cluster(primary, **settings),
            "redis-002": cluster(mirror, **(mirror_settings or {})),
        },
    )
