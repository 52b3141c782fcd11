"""Enrollment over Secure Transport (RFC 7030, as RFC 8951 clarifies it): simpleenroll, simplereenroll, cacerts.

A server that lets us wait answers 202, and is asked again with the very same request; the handle is where that goes. A
profile's `ca_profile` is the label in the path, by which a server with several CAs or profiles tells them apart.
EST knows no identifier of an order: what a server makes of the same request after an answer was lost is its own choice,
so that such an order is UNKNOWN unless the registry says that the server gives the same certificate again
(`repeatable`). EST cannot revoke: an operator does that at the CA.
"""

import base64
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Literal, Self
from urllib.parse import quote

from cryptography import x509
from pydantic import Field, StringConstraints, model_validator

from services.ca_connector.answers import words
from services.ca_connector.authorities import Capabilities, Health, Surroundings
from services.ca_connector.certificates import chain_for, read_certificates
from services.ca_connector.client import Answer, Peer, basic
from services.ca_connector.orders import Issued, Order, Outcome, Pending, Refused
from shared.errors import Code, RakkanError
from shared.registry import CertificationAuthority
from shared.registry.model import PEM, Entry, Label, SecretName

PROTOCOL = "est"
_ROOT = "/.well-known/est"
_CERTIFICATES = "application/pkcs7-mime"
_REFUSALS = frozenset({"text/plain", "text/html", "application/json", "application/problem+json", ""})
_OK, _ACCEPTED, _NO_CONTENT, _NOT_FOUND = 200, 202, 204, 404
_REFUSED = frozenset({400, 409, 422})
"""RFC 7030 4.2.3 has no list: these are about the request and not about us or the server."""
_LINE = 64
PathLabel = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._~-]{1,64}$")]
HTTPS = Annotated[str, StringConstraints(pattern=r"^https://[^\s#]+$", max_length=500)]


class Connection(Entry):
    url: HTTPS
    """Up to the host or the folder that holds `.well-known`; EST is never spoken without TLS (RFC 7030 3.3)."""
    label: PathLabel | None = None
    """Of one of several CAs of a server (RFC 7030 3.2.2), where a profile names none."""
    username: Label | None = None
    password: SecretName | None = None
    client_certificate: SecretName | None = None
    """PEM file of certificate and key."""
    renewal: Literal["simpleenroll", "simplereenroll"] = "simpleenroll"
    """A server may take a reenrollment only from the certificate's own holder over TLS, whose key is in the HSM."""
    repeatable: bool = False
    """The server answers the same request with the same certificate."""
    tls_anchors: tuple[PEM, ...] = Field(min_length=1)
    """What its web server is believed by (the explicit trust anchors of RFC 7030 3.6.1)."""

    @model_validator(mode="after")
    def _is_known_there(self) -> Self:
        if (self.username is None) != (self.password is None):
            raise ValueError("a username goes with a password")
        if self.username is None and self.client_certificate is None:
            raise ValueError("name a client_certificate, or a username and a password")
        return self


def open(ca: CertificationAuthority, connection: Connection, surroundings: Surroundings) -> "EST":  # noqa: A001 - the name all adapters have
    files, certificate = surroundings.secrets, connection.client_certificate
    login = None
    if connection.username is not None and connection.password is not None:
        login = basic(connection.username, files.secret(connection.password))
    peer = Peer.open(
        connection.url,
        timeout_s=ca.timeout_s,
        connections_max=ca.concurrency_max,
        tls_anchors=connection.tls_anchors,
        client_certificate=None if certificate is None else files.secret_file(certificate),
        authorization=login,
    )
    return EST(ca, connection, peer=peer, now=surroundings.now)


class EST:
    def __init__(
        self, ca: CertificationAuthority, connection: Connection, *, peer: Peer, now: Callable[[], datetime]
    ) -> None:
        self.ca = ca
        self.connection = connection
        self.peer = peer
        self.now = now
        self.capabilities = Capabilities(
            polls=True,
            revokes=False,
            renews=connection.renewal == "simplereenroll",
            repeatable=connection.repeatable,
        )
        self._above: tuple[x509.Certificate, ...] | None = None

    async def submit(self, order: Order) -> Outcome:
        if self._above is None:
            # An answer to an enrollment holds the certificate alone. Fetched before, for afterwards it must not fail.
            await self.check()
        operation = self.connection.renewal if order.previous is not None else "simpleenroll"
        label = self.ca.profiles[order.profile].ca_profile or self.connection.label
        return await self._enroll(order, f"{_folder(label)}/{operation}")

    async def poll(self, order: Order) -> Outcome:
        """The same request to the same place (RFC 7030 4.2.3)."""
        path = (order.handle or b"").decode("ascii", "replace")
        if not path.startswith(_ROOT):
            raise RakkanError(Code.INDETERMINATE, f"where order {order.order_id} was placed is lost")
        return await self._enroll(order, path)

    async def confirm(self, order: Order, *, accepted: bool) -> None:
        """It waits for no word of ours."""

    async def revoke(self, order: Order, *, reason: int, at: datetime) -> None:  # noqa: ARG002 - it can do neither
        raise RakkanError(Code.AUTHORITY_REFUSED, f"order {order.order_id}: EST has no revocation")

    async def check(self) -> Health:
        """cacerts. Everybody may ask for them: whether our credentials are good an enrollment will tell."""
        answer = await self.peer.request("GET", f"{_folder(self.connection.label)}/cacerts", expects=(_CERTIFICATES,))
        if answer.status in {_NO_CONTENT, _NOT_FOUND}:
            self._above = ()
            return Health()
        if answer.status != _OK:
            raise RakkanError(Code.AUTHORITY_UNTRUSTED, f"HTTP status {answer.status} instead of certificates")
        self._above = _read(answer)
        return Health(chain=_sorted(self._above))

    async def close(self) -> None:
        await self.peer.close()

    async def _enroll(self, order: Order, path: str) -> Outcome:
        answer = await self.peer.request(
            "POST",
            path,
            content=_lines(order.csr),
            headers={"content-type": "application/pkcs10", "content-transfer-encoding": "base64"},
            once=not self.connection.repeatable,
        )
        if answer.status == _ACCEPTED:
            return Pending(path.encode(), answer.retry_after(self.now()))
        if answer.status in _REFUSED:
            return Refused(_why(answer))
        if answer.status != _OK or answer.content_type != _CERTIFICATES:
            told = f"HTTP status {answer.status} of the type {answer.content_type[:60]!r}"
            raise RakkanError(Code.AUTHORITY_UNTRUSTED, told)
        more = (*(self._above or ()), *self.ca.intermediate_certificates)
        return Issued(chain_for(order.csr, _read(answer), more=more))


def _folder(label: str | None) -> str:
    return f"{_ROOT}/{quote(label, safe='')}" if label else _ROOT


def _read(answer: Answer) -> tuple[x509.Certificate, ...]:
    """Certs-only CMC, in base64 whatever Content-Transfer-Encoding says (RFC 8951 2.1)."""
    return read_certificates(answer.body)


def _lines(der: bytes) -> bytes:
    text = base64.b64encode(der)
    return b"".join(text[start : start + _LINE] + b"\n" for start in range(0, len(text), _LINE))


def _why(answer: Answer) -> str:
    """A human-readable body may say why (RFC 7030 4.2.3)."""
    told = words(answer.body.decode("utf-8", "replace")) if answer.content_type in _REFUSALS else ""
    return told or f"HTTP status {answer.status}"


def _sorted(certificates: tuple[x509.Certificate, ...]) -> tuple[x509.Certificate, ...]:
    """The issuing CA first, roots last: a PKCS#7 is a set and has no order."""
    issuers = {one.issuer for one in certificates if one.issuer != one.subject}
    return tuple(sorted(certificates, key=lambda one: (one.issuer == one.subject, one.subject in issuers)))
