"""The JSON API of Cloudflare's cfssl: `authsign` under a shared key signs at once, nothing is polled.

Its answers are envelopes `{"success", "result", "errors", "messages"}`, mostly with HTTP status 200 or 400. It signs
again whenever it is asked and keeps no list by key: an answer that is lost cannot be looked up.
"""

import base64
import hashlib
import hmac
import json
from datetime import datetime
from typing import Any, Literal

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from services.ca_connector.answers import look, read_json, text_at, why, words
from services.ca_connector.authorities import Capabilities, Health, Surroundings
from services.ca_connector.certificates import chain_for, read_certificates
from services.ca_connector.client import Answer, Peer
from services.ca_connector.orders import Issued, Order, Outcome, Refused
from shared.errors import Code, RakkanError
from shared.registry import CertificationAuthority
from shared.registry.model import PEM, URL, Entry, Label, SecretName
from shared.settings import SettingsError

PROTOCOL = "cfssl"
_API = "/api/v1/cfssl"
_BAD_REQUEST = 400
_SUCCESSES = range(200, 300)
_OUR_KEY_IS_WRONG = ("invalid token", "authentication failure", "failed to authenticate")
"""cfssl has no status of its own for this: it is told from a request that it will not sign by these words alone."""
_REASONS = {
    0: "unspecified",
    1: "keycompromise",
    2: "cacompromise",
    3: "affiliationchanged",
    4: "superseded",
    5: "cessationofoperation",
    9: "privilegewithdrawn",
    10: "aacompromise",
}


class Connection(Entry):
    url: URL
    key: SecretName
    """Hex, as under `auth_keys` in cfssl's own configuration."""
    label: Label | None = None
    """Of the signer, where one server (`multirootca`) holds several CAs."""
    authority_key_id: Literal["empty", "hex"] = "hex"
    """What `revoke` names the issuer by. Servers before 1.3 store it empty and find nothing by the real one."""
    tls_anchors: tuple[PEM, ...] = ()
    client_certificate: SecretName | None = None
    """PEM file of certificate and key."""


def open(ca: CertificationAuthority, connection: Connection, surroundings: Surroundings) -> "CFSSL":  # noqa: A001 - the name all adapters have
    try:
        key = bytes.fromhex(surroundings.secrets.secret(connection.key))
    except ValueError:
        raise SettingsError(f"the secret {connection.key} is not hexadecimal") from None
    certificate = connection.client_certificate
    peer = Peer.open(
        connection.url,
        timeout_s=ca.timeout_s,
        connections_max=ca.concurrency_max,
        tls_anchors=connection.tls_anchors,
        client_certificate=None if certificate is None else surroundings.secrets.secret_file(certificate),
    )
    return CFSSL(ca, connection, peer=peer, key=key)


class CFSSL:
    capabilities = Capabilities(polls=False, revokes=True, renews=False)

    def __init__(self, ca: CertificationAuthority, connection: Connection, *, peer: Peer, key: bytes) -> None:
        self.ca = ca
        self.connection = connection
        self.peer = peer
        self.key = key

    async def submit(self, order: Order) -> Outcome:
        """An unknown profile is no error to cfssl, which then takes its default one: the SAM sees what came of it."""
        request = self._labeled(
            certificate_request=x509.load_der_x509_csr(order.csr).public_bytes(Encoding.PEM).decode(),
            profile=self.ca.profiles[order.profile].ca_profile or order.profile,
        )
        content = json.dumps(request).encode()
        token = hmac.new(self.key, content, hashlib.sha256).digest()
        signed = {"token": base64.b64encode(token).decode(), "request": base64.b64encode(content).decode()}
        answer = await self._ask("authsign", signed, once=True)
        if answer.status == _BAD_REQUEST:
            return Refused(_why(answer))
        certificates = read_certificates(text_at(_read(answer), "/result/certificate").encode())
        chain = chain_for(order.csr, certificates, more=self.ca.intermediate_certificates)
        return Issued(chain)

    async def poll(self, order: Order) -> Outcome:
        raise RakkanError(Code.INTERNAL, f"order {order.order_id}: nothing is left pending here")

    async def confirm(self, order: Order, *, accepted: bool) -> None:
        """It waits for no word of ours."""

    async def revoke(self, order: Order, *, reason: int, at: datetime) -> None:  # noqa: ARG002 - it takes its own time
        certificate = x509.load_der_x509_certificate(order.chain[0])
        issuer = "" if self.connection.authority_key_id == "empty" else _authority_key_id(certificate)
        wish = {
            "serial": str(certificate.serial_number),
            "authority_key_id": issuer,
            "reason": _REASONS.get(reason, "unspecified"),
        }
        answer = await self._ask("revoke", wish)
        if answer.status == _BAD_REQUEST:
            raise RakkanError(Code.AUTHORITY_REFUSED, f"not revoked: {_why(answer)}")
        _read(answer)

    async def check(self) -> Health:
        """Whether it is there and which CA it is. It has no question by which our key could be tried."""
        document = _read(await self._ask("info", self._labeled(label=self.connection.label or "")))
        issuers = read_certificates(text_at(document, "/result/certificate").encode())
        return Health(chain=(*issuers, *self.ca.intermediate_certificates))

    async def close(self) -> None:
        await self.peer.close()

    def _labeled(self, **members: str) -> dict[str, str]:
        label = self.connection.label
        return members if label is None else {**members, "label": label}

    async def _ask(self, method: str, body: dict[str, str], *, once: bool = False) -> Answer:
        answer = await self.peer.request(
            "POST",
            f"{_API}/{method}",
            content=json.dumps(body).encode(),
            headers={"content-type": "application/json"},
            expects=("application/json", "text/plain"),  # what it says with a status of its own goes out as text
            once=once,
        )
        if answer.status == _BAD_REQUEST and _why(answer).lower().startswith(_OUR_KEY_IS_WRONG):
            raise RakkanError(Code.AUTHORITY_REFUSED, f"our key is refused: {_why(answer)}")
        return answer


def _read(answer: Answer) -> Any:
    if answer.status not in _SUCCESSES:
        raise RakkanError(Code.AUTHORITY_UNTRUSTED, f"HTTP status {answer.status}: {_why(answer)}")
    document = read_json(answer)
    if look(document, "/success") is not True:
        raise RakkanError(Code.AUTHORITY_UNTRUSTED, f"no success: {words(document)}")
    return document


def _why(answer: Answer) -> str:
    return why(answer, "/errors/0/message")


def _authority_key_id(certificate: x509.Certificate) -> str:
    try:
        found = certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
    except (x509.ExtensionNotFound, ValueError):
        found = None
    return (found or b"").hex()
