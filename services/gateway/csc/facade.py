"""The shape of a version's façade: its methods, each with how it is read and how its answer is written."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from services.gateway.csc.model import Call, Version
from services.gateway.csc.parameters import Parameters

STANDARD_METHODS = (
    "auth/login",
    "auth/revoke",
    "credentials/list",
    "credentials/info",
    "credentials/authorize",
    "credentials/authorizeCheck",
    "credentials/extendTransaction",
    "credentials/getChallenge",
    "credentials/sendOTP",
    "credentials/create",
    "credentials/delete",
    "signatures/signHash",
    "signatures/signDoc",
    "signatures/signPolling",
    "signatures/timestamp",
    "oauth2/authorize",
    "oauth2/pushed_authorize",
    "oauth2/token",
    "oauth2/revoke",
)
"""Every method of either version but `info`. Those of OAuth live at the base that `info` names, not here."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a façade needs to know of the limits of the door, and of the token that came."""

    hashes_max: int
    token_authorizes: bool = False
    """The token names an authorization, so signHash needs no SAD."""
    extension: bool = False
    """Whether members of our extension (`services/gateway/extension.py`) are taken and answered."""


@dataclass(frozen=True, slots=True)
class Told:
    """An answer with another status than 200."""

    status: int
    members: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Method:
    """One method of the CSC in one version. `write` answering None means 204."""

    name: str
    summary: str
    read: Callable[[Parameters, Limits], Call]
    write: Callable[[Any, Any, Limits], Mapping[str, Any] | Told | None]
    example: Mapping[str, Any]
    answer: Mapping[str, Any] | None
    extension: bool = False
    """Ours, and not there where the operator keeps the extension off."""
    good: tuple[int, ...] = (200,)
    """What it answers with when all is well and there is something to say."""


@dataclass(frozen=True, slots=True)
class Facade:
    version: Version
    specs: str
    methods: tuple[Method, ...]

    @property
    def missing(self) -> tuple[str, ...]:
        """Methods of the standard that this version does not offer here: 501."""
        offered = {method.name for method in self.methods}
        return tuple(name for name in STANDARD_METHODS if name not in offered)
