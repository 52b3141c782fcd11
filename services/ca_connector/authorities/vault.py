"""The PKI engine of HashiCorp Vault and OpenBao: a role signs at once, nothing is polled.

Of the request it takes the key, the common name and the serial number; all else of the certificate is the role's to
say. It issues again whenever it is asked, and keeps no list by key: an answer that is lost cannot be looked up.
"""

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Any, Self
from urllib.parse import quote

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from pydantic import StringConstraints, model_validator

from services.ca_connector.answers import JSON, look, read_json, text_at, why
from services.ca_connector.authorities import Capabilities, Health, Secrets, Surroundings
from services.ca_connector.certificates import chain_for, read_certificates
from services.ca_connector.client import Answer, Peer
from services.ca_connector.orders import Issued, Order, Outcome, Refused
from shared.errors import Code, RakkanError
from shared.registry import CertificationAuthority
from shared.registry.model import PEM, URL, Entry, Label, SecretName
from shared.settings import SettingsError

PROTOCOL = "vault"
_BAD_REQUEST = 400
_OK = 200
_BACKDATED = timedelta(hours=1)
"""Roles set notBefore a little back; what is asked for is so much less than what the profile allows."""
_PERCENT_OF_LEASE = 50
Mount = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*$", max_length=128)]


class AppRole(Entry):
    """A login that gives a token for a while (auth method `approle`)."""

    role_id: Label
    secret_id: SecretName
    mount: Mount = "approle"


class Connection(Entry):
    url: URL
    mount: Mount = "pki"
    issuer: Label | None = None
    """One of the mount's issuers; nothing: its default one."""
    token: SecretName | None = None
    approle: AppRole | None = None
    namespace: Label | None = None
    tls_anchors: tuple[PEM, ...] = ()
    """What its web server is believed by; empty: what the system believes."""
    client_certificate: SecretName | None = None
    """PEM file of certificate and key."""

    @model_validator(mode="after")
    def _logs_in_one_way(self) -> Self:
        if (self.token is None) == (self.approle is None):
            raise ValueError("name either a token or an approle")
        return self


def open(ca: CertificationAuthority, connection: Connection, surroundings: Surroundings) -> "Vault":  # noqa: A001 - the name all adapters have
    certificate = connection.client_certificate
    peer = Peer.open(
        connection.url,
        timeout_s=ca.timeout_s,
        connections_max=ca.concurrency_max,
        tls_anchors=connection.tls_anchors,
        client_certificate=None if certificate is None else surroundings.secrets.secret_file(certificate),
    )
    login = Login(peer, connection, secrets=surroundings.secrets, now=surroundings.now)
    return Vault(ca, connection, peer=peer, login=login)


class Vault:
    capabilities = Capabilities(polls=False, revokes=True, renews=False)

    def __init__(self, ca: CertificationAuthority, connection: Connection, *, peer: Peer, login: "Login") -> None:
        self.ca = ca
        self.peer = peer
        self.login = login
        self.mount = f"/v1/{connection.mount}"
        issuer = connection.issuer
        self.issuer = f"{self.mount}/issuer/{quote(issuer or 'default', safe='')}"
        self.signer = self.mount if issuer is None else self.issuer

    async def submit(self, order: Order) -> Outcome:
        profile = self.ca.profiles[order.profile]
        role = quote(profile.ca_profile or order.profile, safe="")
        request = x509.load_der_x509_csr(order.csr)
        body = {
            "csr": request.public_bytes(Encoding.PEM).decode(),
            "common_name": _value(request, NameOID.COMMON_NAME),
            "serial_number": _value(request, NameOID.SERIAL_NUMBER),
            "exclude_cn_from_sans": True,
            "ttl": f"{int((timedelta(days=profile.validity_days_max) - _BACKDATED).total_seconds())}s",
        }
        answer = await self._ask(f"{self.signer}/sign/{role}", body, once=True)
        if answer.status == _BAD_REQUEST:
            return Refused(why(answer, "/errors/0"))
        document = _read(answer)
        certificates = read_certificates(text_at(document, "/data/certificate").encode())
        above = look(document, "/data/ca_chain") or [text_at(document, "/data/issuing_ca")]
        for one in above if isinstance(above, list) else ():
            certificates += read_certificates(str(one).encode())
        return Issued(chain_for(order.csr, certificates, more=self.ca.intermediate_certificates))

    async def poll(self, order: Order) -> Outcome:
        raise RakkanError(Code.INTERNAL, f"order {order.order_id}: nothing is left pending here")

    async def confirm(self, order: Order, *, accepted: bool) -> None:
        """It waits for no word of ours."""

    async def revoke(self, order: Order, *, reason: int, at: datetime) -> None:  # noqa: ARG002 - it takes neither
        certificate = x509.load_der_x509_certificate(order.chain[0]).public_bytes(Encoding.PEM).decode()
        answer = await self._ask(f"{self.mount}/revoke", {"certificate": certificate})
        if answer.status == _BAD_REQUEST:
            raise RakkanError(Code.AUTHORITY_REFUSED, f"not revoked: {why(answer, '/errors/0')}")
        # Of one that has expired it only warns: that one is on no list and needs none.
        told = _read(answer)
        if not look(told, "/data/revocation_time") and not look(told, "/warnings/0"):
            raise RakkanError(Code.AUTHORITY_UNTRUSTED, "an answer that does not say since when it is revoked")

    async def check(self) -> Health:
        answer = await self._ask(f"{self.issuer}/json", None)
        stated = look(_read(answer), "/data/ca_chain")
        if not isinstance(stated, list) or not stated:
            raise RakkanError(Code.AUTHORITY_UNTRUSTED, "it states no chain")
        return Health(chain=tuple(one for pem in stated for one in read_certificates(str(pem).encode())))

    async def close(self) -> None:
        await self.peer.close()

    async def _ask(self, path: str, body: Any, *, once: bool = False) -> Answer:
        """With our token; with a new one when this one is refused, for it may have been revoked at the server."""
        try:
            return await self.login.ask(path, body, once=once)
        except RakkanError as refusal:
            if refusal.code is not Code.AUTHORITY_REFUSED:
                raise
        self.login.forget()
        return await self.login.ask(path, body, once=once)


@dataclass(frozen=True)
class Token:
    value: str
    renewable: bool
    renew_at: datetime | None
    """Nothing: it has no end, or none that we are told."""


class Login:
    """Our token: got, renewed at half its lease, and got anew when that is refused."""

    def __init__(self, peer: Peer, connection: Connection, *, secrets: Secrets, now: Callable[[], datetime]) -> None:
        self._peer = peer
        self._connection = connection
        self._secrets = secrets
        self._now = now
        self._one_at_a_time = asyncio.Lock()
        self._token: Token | None = None

    def forget(self) -> None:
        self._token = None

    async def ask(self, path: str, body: Any, *, once: bool = False) -> Answer:
        async with self._one_at_a_time:
            self._token = await self._current()
            value = self._token.value
        return await self._exchange(path, body, token=value, once=once)

    async def _current(self) -> Token:
        token = self._token
        if token is None:
            return await self._acquire()
        if token.renew_at is None or self._now() < token.renew_at:
            return token
        return (await self._renew(token.value) if token.renewable else None) or await self._acquire()

    async def _renew(self, value: str) -> Token | None:
        """Nothing when it has come to its end and a new login is needed."""
        try:
            answer = await self._exchange("/v1/auth/token/renew-self", {}, token=value)
        except RakkanError as refusal:
            if refusal.code is Code.AUTHORITY_REFUSED:
                return None
            raise
        return None if answer.status == _BAD_REQUEST else self._granted(answer)

    async def _acquire(self) -> Token:
        if self._connection.approle is not None:
            return await self._log_in(self._connection.approle)
        value = self._secret(self._connection.token or "")
        try:
            told = _read(await self._exchange("/v1/auth/token/lookup-self", None, token=value))
        except RakkanError as refusal:
            if refusal.code is not Code.AUTHORITY_REFUSED:
                raise
            return Token(value, renewable=False, renew_at=None)  # a policy may deny just the question
        return self._token_of(value, seconds=look(told, "/data/ttl"), renewable=look(told, "/data/renewable"))

    async def _log_in(self, approle: AppRole) -> Token:
        credentials = {"role_id": approle.role_id, "secret_id": self._secret(approle.secret_id)}
        answer = await self._exchange(f"/v1/auth/{approle.mount}/login", credentials)
        if answer.status == _BAD_REQUEST:
            raise RakkanError(Code.AUTHORITY_REFUSED, f"the login is refused: {why(answer, '/errors/0')}")
        return self._granted(answer)

    def _secret(self, name: str) -> str:
        """Read each time: an agent beside us may put a new one there."""
        try:
            return self._secrets.secret(name)
        except (OSError, SettingsError) as error:
            raise RakkanError(Code.AUTHORITY_REFUSED, f"the secret {name} cannot be read: {error}") from None

    def _granted(self, answer: Answer) -> Token:
        document = _read(answer)
        value = text_at(document, "/auth/client_token")
        seconds = look(document, "/auth/lease_duration")
        return self._token_of(value, seconds=seconds, renewable=look(document, "/auth/renewable"))

    def _token_of(self, value: str, *, seconds: Any, renewable: Any) -> Token:
        if not isinstance(seconds, int) or seconds <= 0:
            return Token(value, renewable=False, renew_at=None)
        lease = timedelta(seconds=min(seconds, 10 * 365 * 86_400))
        return Token(value, renewable=renewable is True, renew_at=self._now() + lease * _PERCENT_OF_LEASE / 100)

    async def _exchange(self, path: str, body: Any, *, token: str | None = None, once: bool = False) -> Answer:
        headers = {"x-vault-request": "true"}
        if token is not None:
            headers["x-vault-token"] = token
        if self._connection.namespace is not None:
            headers["x-vault-namespace"] = self._connection.namespace
        if body is None:
            return await self._peer.request("GET", path, headers=headers, expects=JSON)
        headers["content-type"] = "application/json"
        content = json.dumps(body).encode()
        return await self._peer.request("POST", path, content=content, headers=headers, expects=JSON, once=once)


def _read(answer: Answer) -> Any:
    if answer.status != _OK:
        raise RakkanError(Code.AUTHORITY_UNTRUSTED, f"HTTP status {answer.status}: {why(answer, '/errors/0')}")
    return read_json(answer)


def _value(request: x509.CertificateSigningRequest, oid: x509.ObjectIdentifier) -> str:
    return next((str(one.value) for one in request.subject.get_attributes_for_oid(oid)), "")
