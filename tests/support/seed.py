"""The configuration files of the article that redisha was made for, pointed at servers of ours."""

import re
from pathlib import Path

_DATA = Path(__file__).with_name("data")
_ADMIN = "admin:\n  address:\n    socket_address:\n      address: 127.0.0.1\n      port_value: {admin}\n"


def envoy_file(name: str, places: dict[str, int]) -> str:
    """An Envoy file with its host names replaced by ports of 127.0.0.1, and its own ports left to the sidecar fixture.

    The article leaves the admin section of its second file out; it is put back.
    """
    text = (_DATA / name).read_text()
    text = text.replace("address: 0.0.0.0", "address: 127.0.0.1")
    text = text.replace("port_value: 6380", "port_value: {port}").replace("port_value: 8001", "port_value: {admin}")
    for host, port in places.items():
        text, count = re.subn(
            rf"address: {re.escape(host)}\n(\s+)port_value: 6379", rf"address: 127.0.0.1\n\g<1>port_value: {port}", text
        )
        assert count == 1, f"{host} occurs {count} times in {name}"
    return text if "admin:" in text else _ADMIN + text
