"""EJBCA by its REST API: `pkcs10enroll`, and `finalize` when somebody at the CA must approve first.

After the published OpenAPI description of EJBCA. Community has enrollment and the CAs' own calls, Enterprise the rest.
It enrolls again whenever it is asked: an answer that is lost is not looked up.
"""

import base64
import binascii
import json
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal, Self
from urllib.parse import quote

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from pydantic import model_validator

from services.ca_connector.answers import JSON, look, read_json, text_at, why
from services.ca_connector.authorities import Capabilities, Health, Surroundings
from services.ca_connector.certificates import CERTIFICATES_MAX, chain_for, read_certificates
from services.ca_connector.client import Answer, Peer
from services.ca_connector.orders import Issued, Order, Outcome, Pending, Refused
from shared.errors import Code, RakkanError
from shared.registry import CertificationAuthority
from shared.registry.model import PEM, URL, Entry, Id, Label, SecretName

PROTOCOL = "ejbca"
_SUCCESSES = frozenset({200, 201})
_WAITING = 202
_REFUSALS = frozenset({400, 409, 413, 422})
_NOT_FOUND = 404
_CONFLICT = 409
_REQUEST_ID = re.compile(r"\bID\W{0,3}(-?\d{1,20})\b", re.IGNORECASE)
_DENIED = re.compile(r"reject|denied|expired", re.IGNORECASE)
_REASONS = {
    0: "UNSPECIFIED",
    1: "KEY_COMPROMISE",
    2: "CA_COMPROMISE",
    3: "AFFILIATION_CHANGED",
    4: "SUPERSEDED",
    5: "CESSATION_OF_OPERATION",
    9: "PRIVILEGES_WITHDRAWN",
    10: "AA_COMPROMISE",
}
_EARLIER_MAX = 100


class Connection(Entry):
    url: URL
    """With the path of the API, as `https://ca.example:8443/ejbca/ejbca-rest-api`."""
    ca_name: Label
    end_entity_profile: Label
    end_entity_profiles: Mapping[Id, Label] = {}
    """For those of our profiles that need another one. The certificate profile is a profile's `ca_profile`."""
    enrollment_code: SecretName
    """What the end entities that are made are protected by; finalizing asks for it."""
    username: Literal["order", "subject"] = "order"
    """An end entity for each first order, or for each serial number of a subject: for CAs that enforce unique DNs."""
    client_certificate: SecretName | None = None
    """PEM file of certificate and key: the RA that EJBCA knows."""
    bearer: SecretName | None = None
    """A token in its place."""
    tls_anchors: tuple[PEM, ...] = ()

    @model_validator(mode="after")
    def _is_known(self) -> Self:
        if self.client_certificate is None and self.bearer is None:
            raise ValueError("name a client_certificate or a bearer: EJBCA knows nobody else")
        return self


def open(ca: CertificationAuthority, connection: Connection, surroundings: Surroundings) -> "EJBCA":  # noqa: A001 - the name all adapters have
    secrets, certificate, bearer = surroundings.secrets, connection.client_certificate, connection.bearer
    peer = Peer.open(
        connection.url,
        timeout_s=ca.timeout_s,
        connections_max=ca.concurrency_max,
        tls_anchors=connection.tls_anchors,
        client_certificate=None if certificate is None else secrets.secret_file(certificate),
        authorization=None if bearer is None else f"Bearer {secrets.secret(bearer)}",
    )
    return EJBCA(ca, connection, peer=peer, code=secrets.secret(connection.enrollment_code))


class EJBCA:
    capabilities = Capabilities(polls=True, revokes=True, renews=False)

    def __init__(self, ca: CertificationAuthority, connection: Connection, *, peer: Peer, code: str) -> None:
        self.ca = ca
        self.connection = connection
        self.peer = peer
        self.code = code

    async def submit(self, order: Order) -> Outcome:
        profile = self.ca.profiles[order.profile]
        wish = {
            "certificate_request": x509.load_der_x509_csr(order.csr).public_bytes(Encoding.PEM).decode(),
            "certificate_profile_name": profile.ca_profile or order.profile,
            "end_entity_profile_name": self.connection.end_entity_profiles.get(
                order.profile, self.connection.end_entity_profile
            ),
            "certificate_authority_name": self.connection.ca_name,
            "username": self._username(order),
            "password": self.code,
            "include_chain": True,
        }
        answer = await self._ask("POST", "/v1/certificate/pkcs10enroll", wish, once=True)
        if answer.status == _WAITING:
            return Pending(_request_id(answer).encode())
        if answer.status in _REFUSALS:
            return Refused(_why(answer))
        _demand_success(answer)
        return self._issued(answer, order, more=self.ca.intermediate_certificates)

    async def poll(self, order: Order) -> Outcome:
        """`finalize` is the question too: it enrolls when the request is approved, and says so when it is not yet."""
        above = await self._chain()  # before: what fails after finalizing would lose the certificate
        request_id = quote((order.handle or b"").decode(), safe="-")
        body = {"response_format": "DER", "password": self.code}
        answer = await self._ask("POST", f"/v1/certificate/{request_id}/finalize", body, once=True)
        if answer.status == _WAITING:
            return Pending(order.handle or b"")
        if answer.status == _NOT_FOUND:
            raise RakkanError(Code.INDETERMINATE, f"it does not know the request: {_why(answer)}")
        if answer.status in _REFUSALS:
            if _DENIED.search(_why(answer)):
                return Refused(_why(answer))
            # Perhaps it was finalized before, and only we do not know: that is not for us to reject.
            raise RakkanError(Code.INDETERMINATE, f"the request cannot be finalized: {_why(answer)}")
        _demand_success(answer)
        return self._issued(answer, order, more=above)

    async def confirm(self, order: Order, *, accepted: bool) -> None:
        """It waits for no word of ours."""

    async def revoke(self, order: Order, *, reason: int, at: datetime) -> None:  # noqa: ARG002 - backdating needs a right of its own
        certificate = x509.load_der_x509_certificate(order.chain[0])
        place = f"/v1/certificate/{quote(await self._subject_dn(), safe='')}/{certificate.serial_number:X}"
        answer = await self._ask("PUT", f"{place}/revoke?reason={_REASONS.get(reason, 'UNSPECIFIED')}", None)
        if answer.status == _CONFLICT:
            answer = await self._ask("GET", f"{place}/revocationstatus", None)
        if answer.status not in _SUCCESSES or look(read_json(answer), "/revoked") is not True:
            raise RakkanError(Code.AUTHORITY_REFUSED, f"not revoked: {_why(answer)}")

    async def check(self) -> Health:
        return Health(chain=await self._chain())

    async def close(self) -> None:
        await self.peer.close()

    def _issued(self, answer: Answer, order: Order, *, more: tuple[x509.Certificate, ...]) -> Issued:
        document = read_json(answer)
        certificates = _certificates(text_at(document, "/certificate"))
        above = look(document, "/certificate_chain")
        for one in above[:CERTIFICATES_MAX] if isinstance(above, list) else ():
            certificates += _certificates(str(one))
        return Issued(chain_for(order.csr, certificates, more=more))

    def _username(self, order: Order) -> str:
        """The same for all that follow from one order: EJBCA then knows them as one end entity."""
        if self.connection.username == "subject":
            subject = x509.load_der_x509_csr(order.csr).subject
            numbers = subject.get_attributes_for_oid(NameOID.SERIAL_NUMBER)
            if numbers and isinstance(numbers[0].value, str):
                return f"rakkan-{numbers[0].value}"
        for _ in range(_EARLIER_MAX):
            if order.previous is None:
                break
            order = order.previous
        return f"rakkan-{order.order_id}"

    async def _chain(self) -> tuple[x509.Certificate, ...]:
        path = f"/v1/ca/{quote(await self._subject_dn(), safe='')}/certificate/download"
        answer = await self.peer.request("GET", path)
        _demand_success(answer)
        return read_certificates(answer.body)

    async def _subject_dn(self) -> str:
        """As EJBCA itself writes it: it is the name of the CA in its addresses."""
        answer = await self._ask("GET", "/v1/ca", None)
        _demand_success(answer)
        known = look(read_json(answer), "/certificate_authorities")
        for one in known if isinstance(known, list) else ():
            if look(one, "/name") == self.connection.ca_name:
                return text_at(one, "/subject_dn")
        raise RakkanError(Code.AUTHORITY_REFUSED, f"we may see no CA of the name {self.connection.ca_name}")

    async def _ask(self, method: str, path: str, body: Any, *, once: bool = False) -> Answer:
        content = b"" if body is None else json.dumps(body).encode()
        headers = {} if body is None else {"content-type": "application/json"}
        return await self.peer.request(method, path, content=content, headers=headers, expects=JSON, once=once)


def _request_id(answer: Answer) -> str:
    """It stands in the words of the answer: versions differ in where."""
    document = read_json(answer)
    said = look(document, "/request_id")
    if isinstance(said, int) and not isinstance(said, bool):
        return str(said)
    found = _REQUEST_ID.search(str(look(document, "/error_message") or look(document, "/message") or ""))
    if found is None:
        raise RakkanError(Code.AUTHORITY_UNTRUSTED, f"it waits for approval and names no request: {_why(answer)}")
    return found[1]


def _certificates(encoded: str) -> tuple[x509.Certificate, ...]:
    """base64 of DER, or of PEM where that was the format asked for."""
    try:
        return read_certificates(base64.b64decode(encoded, validate=True))
    except binascii.Error:
        return read_certificates(encoded.encode())


def _demand_success(answer: Answer) -> None:
    if answer.status not in _SUCCESSES:
        raise RakkanError(Code.AUTHORITY_UNTRUSTED, f"HTTP status {answer.status}: {_why(answer)}")


def _why(answer: Answer) -> str:
    return why(answer, "/error_message", "/message")
