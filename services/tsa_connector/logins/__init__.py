"""How each kind of TSA knows us: headers for a request, a certificate for TLS. A scheme of one's own is a file here.

A hook is a module of this package that the registry names (`{"kind": "hook", "hook": "licence_file", …}`). It has

    def open(login: TSALogin, secrets: Secrets) -> Login      # reads files, and no network
"""

import base64
import importlib
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from shared.registry.model import TSALogin
from shared.settings import SettingsError


class Secrets(Protocol):
    """This room's folder of what the registry only names."""

    def secret(self, name: str) -> str: ...

    def secret_file(self, name: str) -> Path: ...


@dataclass(frozen=True)
class Login:
    """What a request carries."""

    headers: Callable[[bytes], Mapping[str, str]] = field(default=lambda _: {}, repr=False)
    """For the query that is about to be sent: a scheme may sign it."""
    certificate_file: Path | None = None
    """PEM of certificate and key."""


def open_login(login: TSALogin, secrets: Secrets) -> Login:
    """What we are known by there. Raises SettingsError for a secret or a hook that is missing."""
    try:
        return _open(login, secrets)
    except OSError as fault:
        raise SettingsError(f"the secret {login.secret} of a TSA cannot be read: {fault.strerror}") from None


def _open(login: TSALogin, secrets: Secrets) -> Login:
    secret = login.secret or ""
    if login.kind == "mtls":
        file = secrets.secret_file(secret)
        file.open().close()
        return Login(certificate_file=file)
    if login.kind == "hook":
        return _hook(login.hook or "", login, secrets)
    header = login.header or "authorization"
    if login.kind == "basic":
        pair = f"{login.username}:{secrets.secret(secret)}".encode()
        return _with(header, f"Basic {base64.b64encode(pair).decode()}")
    if login.kind == "bearer":
        return _with(header, f"Bearer {secrets.secret(secret)}")
    if login.kind == "header":
        return _with(header, secrets.secret(secret))
    return Login()


def _with(header: str, value: str) -> Login:
    headers = {header: value}
    return Login(headers=lambda _: headers)


def _hook(name: str, login: TSALogin, secrets: Secrets) -> Login:
    module = f"{__name__}.{name.replace('-', '_')}"
    if importlib.util.find_spec(module) is None:
        raise SettingsError(f"there is no login hook {name}")
    opened: Login = importlib.import_module(module).open(login, secrets)
    return opened
