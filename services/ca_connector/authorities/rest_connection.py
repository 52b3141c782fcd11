"""How the registry describes a CA that is ordered from and polled by REST: its calls, its words, its login. No I/O."""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, JsonValue, StringConstraints, model_validator

from services.ca_connector.templates import ORDER_NAMES, REVOCATION_NAMES, names_in
from shared.registry.model import PEM, URL, Entry, Label, SecretName

Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,62}$")]
Statuses = frozenset[Annotated[int, Field(ge=200, le=599)]]


class PlaceEntry(Entry):
    """Where something stands in an answer: at a JSON Pointer (RFC 6901), in a header, or the whole body."""

    pointer: Annotated[str, StringConstraints(pattern=r"^(/|$)")] | None = None
    header: Label | None = None
    body: bool = False
    last_segment: bool = False
    """Of a URL found there: what stands after its last slash."""

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if [self.pointer is not None, self.header is not None, self.body].count(True) != 1:
            raise ValueError("name one of pointer, header, body")
        return self


def _short(written: Any) -> Any:
    return {"pointer": written} if isinstance(written, str) else written


Place = Annotated[PlaceEntry, BeforeValidator(_short)]
"""A text alone is a JSON Pointer."""


class Call(Entry):
    """One request. `{names}` stand in path, headers, body and form for what belongs to the order."""

    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"] = "POST"
    path: Annotated[str, StringConstraints(pattern=r"^/", max_length=500)]
    headers: Mapping[str, str] = {}
    body: JsonValue = None
    """Sent as JSON."""
    form: Mapping[str, str] | None = None
    """Sent as a form, in the place of JSON."""
    accepts: tuple[Label, ...] = ("application/json",)
    """Media types of which an answer must be one."""
    refuses: Statuses = frozenset({400, 409, 422})
    """The CA will not: the order ends, with its reason."""
    pends: Statuses = frozenset()
    """Not yet: asked again later."""
    loses: Statuses = frozenset({404, 410})
    """It does not know the order (any more): an operator must look. Asked by `find`: it was never placed."""
    shows: Place | None = None
    """Where something must stand in a success of `revoke` or `check`, which has nothing else to tell it by."""

    @property
    def names(self) -> frozenset[str]:
        return names_in([self.path, dict(self.headers), self.body, dict(self.form or {})])


class RevocationCall(Call):
    already: tuple[Label, ...] = ()
    """Words in a refusal which say that it is revoked already."""


class States(Entry):
    """The CA's own words for how an order stands."""

    at: Place
    pending: tuple[str, ...] = ()
    issued: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()


class Login(Entry):
    """How the CA knows us, besides a client certificate.

    `token` asks for one by a call of its own, in which `{names}` stand for secrets, and shows it as a bearer.
    """

    kind: Literal["none", "basic", "bearer", "headers", "token"] = "none"
    username: Label | None = None
    secret: SecretName | None = None
    """The password (basic) or the token (bearer)."""
    headers: Mapping[Label, SecretName] = {}
    call: Call | None = None
    secrets: Mapping[Name, SecretName] = {}
    token_at: Place | None = None
    token_s: int = Field(default=300, ge=1)
    """How long it is used before another is asked for; a refused one is replaced at once."""

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        needs = {
            "none": (),
            "basic": ("username", "secret"),
            "bearer": ("secret",),
            "headers": ("headers",),
            "token": ("call", "token_at"),
        }[self.kind]
        if missing := [name for name in needs if not getattr(self, name)]:
            raise ValueError(f"a login of the kind {self.kind} needs {', '.join(missing)}")
        if self.call and (strange := self.call.names - self.secrets.keys()):
            raise ValueError(f"the login's call names {', '.join(sorted(strange))}, for which there is no secret")
        return self


class Connection(Entry):
    url: URL
    login: Login = Login()
    tls_anchors: tuple[PEM, ...] = ()
    client_certificate: SecretName | None = None
    """PEM file of certificate and key."""

    order: Call
    renew: Call | None = None
    """For an order that takes over from another; `{previous_…}` are what was kept of that one."""
    status: Call | None = None
    certificate: Call | None = None
    """Fetches what was issued, where the status does not bring it."""
    chain: Call | None = None
    """Fetches the issuers' certificates, for CAs that send them only when asked."""
    revoke: RevocationCall | None = None
    find: Call | None = None
    """Looks for an order by its `{order_id}`; without it an order whose answer was lost is left to an operator."""
    check: Call | None = None

    keep: Mapping[Name, Place] = {}
    """What later calls need of the answers to `order`, `find` and `status`, each under its name."""
    states: States | None = None
    certificate_at: Place
    chain_at: Place | None = None
    reason_at: tuple[Place, ...] = ()
    reasons: Mapping[int, str] = {}
    """Of revocation, where the CA's words are not those of RFC 5280."""

    @model_validator(mode="after")
    def _names_stand_for_something(self) -> Self:
        kept = ORDER_NAMES | self.keep.keys()
        self._check("order", self.order, ORDER_NAMES)
        self._check("find", self.find, ORDER_NAMES)
        self._check("renew", self.renew, ORDER_NAMES | {f"previous_{name}" for name in self.keep})
        self._check("status", self.status, kept)
        self._check("certificate", self.certificate, kept)
        self._check("chain", self.chain, ())
        self._check("check", self.check, ())
        self._check("revoke", self.revoke, kept | REVOCATION_NAMES)
        return self

    @model_validator(mode="after")
    def _later_calls_have_what_they_need(self) -> Self:
        if self.status is not None and not (self.states or self.status.pends):
            raise ValueError("status needs states, or statuses that mean pending")
        if self.chain is not None and self.chain_at is None:
            raise ValueError("chain needs chain_at")
        return self

    @staticmethod
    def _check(which: str, call: Call | None, known: Iterable[str]) -> None:
        if call is not None and (strange := call.names - frozenset(known)):
            raise ValueError(f"the call {which} names {', '.join(sorted(strange))}, which is not known there")
