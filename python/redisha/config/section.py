"""What the configuration's sections share: their base class, the types of their fields, two sections used twice."""

from collections.abc import Mapping
from typing import Annotated, ClassVar, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo

from redisha.config.scalars import (
    parse_bind,
    parse_duration,
    parse_endpoint,
    parse_rate,
    parse_size,
    parse_state_dir,
    parse_timeout,
)
from redisha.config.secret import Secret, Secrets


def _bind(value: object) -> str:
    return str(parse_bind(value))


def _endpoint(value: object) -> str:
    return str(parse_endpoint(value))


def _secret(value: object, info: ValidationInfo) -> Secret:
    secrets = info.context
    if isinstance(value, Secret):
        return value
    if not isinstance(secrets, Secrets):
        raise TypeError("secrets are looked up by redisha.config.load")
    return secrets.resolve(value)


def one_or_more(value: object) -> object:
    """A single text stands for a list of one."""
    return [value] if isinstance(value, str) else value


Milliseconds: TypeAlias = Annotated[int, BeforeValidator(parse_duration)]
Timeout: TypeAlias = Annotated[int, BeforeValidator(parse_timeout)]
Bytes: TypeAlias = Annotated[int, BeforeValidator(parse_size)]
Rate: TypeAlias = Annotated[int, BeforeValidator(parse_rate)]
Folder: TypeAlias = Annotated[str, BeforeValidator(parse_state_dir)]
Bind: TypeAlias = Annotated[str, BeforeValidator(_bind)]
Endpoint: TypeAlias = Annotated[str, BeforeValidator(_endpoint)]
SecretText: TypeAlias = Annotated[Secret, BeforeValidator(_secret)]
Name: TypeAlias = Annotated[str, Field(min_length=1, max_length=200)]
RingSize: TypeAlias = Annotated[int, Field(ge=1, le=8 * 1024**2)]
Count: TypeAlias = Annotated[int, Field(ge=1, le=1_000_000)]


class Section(BaseModel):
    """What every section of the file has in common.

    ``later`` names the fields that the design has and this version has not, with what to do instead.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", arbitrary_types_allowed=True)
    later: ClassVar[Mapping[str, str]] = {}


class UpstreamAuth(Section):
    """What redisha says to Redis servers: to those of a cluster, or to a group member's own."""

    username: SecretText | None = None
    password: SecretText


class Health(Section):
    """The probe of each Redis: ``PING`` on a connection of its own."""

    interval: Timeout = 1000
    timeout: Timeout = 1000
    unhealthy_threshold: Count = 3
    healthy_threshold: Count = 2
