"""Settings from the environment: prefix `RAKKAN_`, nested names joined by `__`.

An unknown `RAKKAN_` name stops the start.
Secrets never stand in the environment: they are files (`…_FILE`), as Kubernetes and systemd mount them.
"""

import os
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

PREFIX = "RAKKAN_"
Port = Annotated[int, Field(ge=0, le=65535)]


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Broker(Section):
    """RabbitMQ. With a CA file the connection is TLS; without, it must be loopback or a private network."""

    host: str = "127.0.0.1"
    port: Port = 5672
    virtual_host: str = "rakkan"
    password_file: Path
    """Of the room's own broker user, which has the room's name."""
    ca_file: Path | None = None
    certificate_file: Path | None = None
    key_file: Path | None = None
    heartbeat_s: int = 10
    """A peer that vanished without a word is noticed after three of these and 3 s more."""
    publish_timeout_s: float = 5.0


class Database(Section):
    """PostgreSQL. A room sees one schema, its own, as the role that has its name."""

    host: str = "127.0.0.1"
    port: Port = 5432
    name: str = "rakkan"
    password_file: Path
    ca_file: Path | None = None
    connections_max: int = 8
    connect_timeout_s: float = 5.0
    command_timeout_s: float = 5.0
    statement_timeout_ms: int = 5000
    lock_timeout_ms: int = 2000
    idle_in_transaction_timeout_ms: int = 15000


class TrustFiles(Section):
    """The trust bundle, and the room's own private keys (PEM, PKCS#8)."""

    bundle_file: Path
    messages_key_file: Path
    sealing_key_file: Path


class RegistryFiles(Section):
    """The registry of trust services: CAs, TSAs and virtual services. See docs/operating/README.md."""

    file: Path
    signatures_file: Path
    """What the registry's officers made with `./rakkan operator registry sign`."""
    secrets_folder: Path | None = None
    """One file for each secret that a connection in the registry names."""
    reload_s: float = Field(default=5.0, gt=0)
    """How often the file is looked at again."""


class HSM(Section):
    """One PKCS#11 token, this room's own."""

    module: Path
    token_label: str
    pin_file: Path


class HealthDoor(Section):
    """The side port of `/healthz`, `/readyz` and `/metrics`. Port 0 takes any free one."""

    host: str = "127.0.0.1"
    port: Port = 0


class Logs(Section):
    level: Literal["debug", "info", "warning", "error"] = "info"


class RoomSettings(BaseSettings):
    """What every room has. A room adds its own sections to it."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_nested_delimiter="__", extra="forbid", frozen=True, hide_input_in_errors=True
    )

    broker: Broker
    trust: TrustFiles
    health: HealthDoor = HealthDoor()
    logs: Logs = Logs()
    drain_timeout_s: float = 40.0
    """How long work in hand may take after SIGTERM."""


S = TypeVar("S", bound=BaseSettings)


class SettingsError(Exception):
    """The environment does not describe a room. The text says which name is wrong and who can mend it: the operator."""


def load(settings: type[S]) -> S:
    """The settings, or SettingsError naming every variable that is missing, wrong or unknown."""
    known = set(_names(settings, PREFIX))
    unknown = sorted(name for name in os.environ if name.upper().startswith(PREFIX) and name.upper() not in known)
    if unknown:
        raise SettingsError(f"unknown settings: {', '.join(unknown)}. Correct or remove them; see docs/settings.md")
    try:
        return settings()
    except ValidationError as error:
        faults = "; ".join(f"{PREFIX}{'__'.join(map(str, e['loc'])).upper()}: {e['msg']}" for e in error.errors())
        raise SettingsError(f"wrong settings: {faults}") from None


def secret(file: Path) -> str:
    """The secret in a file, without the line end that editors add."""
    text = file.read_text(encoding="utf-8").rstrip("\r\n")
    if not text:
        raise SettingsError(f"the secret file {file} is empty")
    return text


def _names(model: type[BaseModel], prefix: str) -> list[str]:
    names: list[str] = []
    for name, field in model.model_fields.items():
        section = _section_of(field.annotation)
        if section is not None:
            names += _names(section, f"{prefix}{name.upper()}__")
        else:
            names.append(f"{prefix}{name.upper()}")
    return names


def _section_of(annotation: Any) -> type[BaseModel] | None:
    """The section, also of a setting that may be left out whole."""
    choices = get_args(annotation) if get_origin(annotation) is UnionType else (annotation,)
    return next((one for one in choices if isinstance(one, type) and issubclass(one, BaseModel)), None)
