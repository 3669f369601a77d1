"""The small messages that listeners and clusters have in common: addresses, secrets, types."""

from pathlib import Path

from redisha.config.envoy.fields import Fields
from redisha.config.scalars import Tcp
from redisha.config.secret import literal
from redisha.config.tree import Item


def translate_address(address: Fields) -> Item | None:
    """``core.v3.Address`` as ``host:port`` or ``unix:/path``; None if it is neither, which is told."""
    socket = address.message("socket_address")
    pipe = address.message("pipe")
    address.done()
    if socket is not None:
        return _socket_address(socket)
    if pipe is not None:
        return _pipe(pipe)
    address.report.error(address.item, "the address needs a socket_address or a pipe")
    return None


def _socket_address(socket: Fields) -> Item | None:
    protocol = socket.text("protocol")
    if protocol is not None and protocol.text != "TCP":
        socket.report.error(protocol, f"only TCP is supported: {protocol.text}")
    host, port = socket.text("address"), socket.number("port_value")
    socket.refuse("named_port", "named ports are not supported", "use port_value")
    socket.refuse("resolver_name", "the system's resolver is used")
    socket.ignore({"ipv4_compat": ""})
    socket.done()
    if host is None or port is None:
        socket.report.error(socket.item, "the socket_address needs an address and a port_value")
        return None
    return socket.item.with_value(str(Tcp(str(host.value), int(str(port.value)))))


def _pipe(pipe: Fields) -> Item | None:
    path = pipe.text("path")
    pipe.ignore({"mode": "the socket gets the mode that the umask leaves"})
    pipe.done()
    if path is None:
        pipe.report.error(pipe.item, "the pipe needs a path")
        return None
    return path.with_value(f"unix:{path.value}")


def translate_secret(source: Fields) -> Item | None:
    """``core.v3.DataSource`` as the reference of a secret; None if it is empty, or wrong, which is told."""
    inline, file = source.text("inline_string"), source.text("filename")
    variable = source.text("environment_variable")
    source.refuse("inline_bytes", "secrets in base64 are not supported", "use inline_string")
    source.ignore({"watched_directory": "secrets are read again on each reload"})
    source.done()
    if file is not None:
        return file.with_value(f"file:{Path(str(file.value)).absolute()}")
    if variable is not None:
        return variable.with_value(f"${{{variable.value}}}")
    if inline is None:
        source.report.error(source.item, "a secret needs inline_string, filename or environment_variable")
        return None
    if inline.value == "":
        source.report.warn(inline, "the secret is empty: it is taken as not given")
        return None
    return inline.with_value(literal(str(inline.value)))


def check_type(config: Fields, expected: str, what: str) -> bool:
    """Whether the message's ``@type`` is the expected one; if not, that is told.

    Args:
        config: A ``google.protobuf.Any``.
        expected: The full name of the message.
        what: How messages call it.
    """
    item = config.required_text("@type")
    if item is None:
        return False
    name = str(item.value).rpartition("/")[2]
    if name != expected:
        config.report.error(item, f"only {what} is supported here: {name}", f"type.googleapis.com/{expected}")
    return name == expected
