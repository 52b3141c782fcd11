"""Requests out and certificates in, for CAs that work by files. Believes no file: the key and the anchors decide."""

import base64
import json
from collections.abc import Callable
from datetime import datetime
from hashlib import sha256
from typing import Protocol

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from services.ca_connector.authorities.manual import PROTOCOL
from services.ca_connector.certificates import chain_for
from services.ca_connector.orders import Issued, Order, State, resolve
from shared.contracts.batches import (
    PAGE_MAX,
    CertificatesImported,
    ExportRequests,
    ImportCertificates,
    ImportedCertificate,
    RequestsExported,
    SignedRequest,
)
from shared.errors import Code, RakkanError
from shared.registry import CertificationAuthority, Registry
from shared.trust import SigningKey

_DOMAIN = b"rakkan-requests/1\0"
"""The key also signs messages; what it signs for one can never be taken for the other."""
_WAITING = frozenset({State.PENDING, State.UNKNOWN})
_OF_THIS_ONE = frozenset({Code.CERTIFICATE_REFUSED, Code.CONFLICT, Code.AUTHORITY_UNTRUSTED})
_UNREADABLE = (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion)


class Store(Protocol):
    async def export(self, authority: str, *, after: str, orders_max: int) -> list[Order]: ...

    async def of_key(self, authority: str, key_hash: bytes) -> list[Order]: ...


class Orders(Protocol):
    async def record(self, before: Order, after: Order, *, now: datetime) -> bool: ...

    async def order(self, order_id: str) -> Order: ...


class Batch:
    def __init__(
        self,
        *,
        store: Store,
        orders: Orders,
        registry: Callable[[], Registry],
        key: SigningKey,
        now: Callable[[], datetime],
    ) -> None:
        self.store = store
        self.orders = orders
        self.registry = registry
        self.key = key
        self.now = now

    async def export_requests(self, message: ExportRequests) -> RequestsExported:
        """A page of the open orders. To export them again is allowed: what comes back is imported once."""
        ca = self._by_hand(message.authority)
        orders = await self.store.export(message.authority, after=message.after or "", orders_max=PAGE_MAX + 1)
        page = orders[:PAGE_MAX]
        return RequestsExported(
            exported_at=self.now(),
            requests=tuple(self._signed(one, ca) for one in page),
            next=page[-1].order_id if len(orders) > PAGE_MAX else None,
        )

    async def import_certificates(self, message: ImportCertificates) -> CertificatesImported:
        """Each certificate to its order. One that is refused leaves the others alone."""
        ca = self._by_hand(message.authority)
        above = [one for der in message.issuers if (one := _read(der)) is not None]
        above += [*ca.intermediate_certificates, *ca.anchor_certificates]
        results = [await self._import(message.authority, der, ca, above) for der in message.certificates]
        return CertificatesImported(certificates=tuple(results))

    def _by_hand(self, authority: str) -> CertificationAuthority:
        ca = self.registry().certification_authorities.get(authority)
        if ca is None:
            raise RakkanError(Code.AUTHORITY_UNKNOWN, f"there is no authority {authority}")
        if ca.protocol != PROTOCOL:
            # What goes to such a CA by file as well might be certified there twice.
            raise RakkanError(Code.CONFLICT, f"{authority} is reached by {ca.protocol} and not by files")
        return ca

    def _signed(self, order: Order, ca: CertificationAuthority) -> SignedRequest:
        profile = ca.profiles.get(order.profile)
        request = x509.load_der_x509_csr(order.csr)
        stated = {
            "format": "rakkan-requests/1",
            "authority": order.authority,
            "order_id": order.order_id,
            "ordered_at": order.created_at.isoformat(),
            "profile": order.profile,
            "ca_profile": profile.ca_profile if profile else None,
            "subject": request.subject.rfc4514_string(),
            "public_key_sha256": _key_hash(request).hex(),
            "replaces_serial_number": _serial_of(order.previous),
            "csr": request.public_bytes(Encoding.PEM).decode(),
            "key_origin": base64.b64encode(order.origin).decode() if order.origin else None,
        }
        body = json.dumps(stated, ensure_ascii=False).encode()
        return SignedRequest(body=body, key_id=self.key.key_id, signature=self.key.key.sign(_DOMAIN + body))

    async def _import(
        self, authority: str, der: bytes, ca: CertificationAuthority, above: list[x509.Certificate]
    ) -> ImportedCertificate:
        certificate = _read(der)
        if certificate is None:
            return ImportedCertificate(serial_number="", outcome="refused", reason="not a certificate that can be read")
        serial_number = f"{certificate.serial_number:x}"
        orders = await self.store.of_key(authority, _key_hash(certificate))
        known = next((one for one in orders if one.chain and one.chain[0] == der), None)
        if known is not None:
            return ImportedCertificate(serial_number=serial_number, outcome="known", order_id=known.order_id)
        try:
            order = _waiting(orders, authority)
            chain = chain_for(order.csr, [certificate], more=above)
            _check_anchored(chain, ca, authority)
            await self._record(order, resolve(order, Issued(chain)))
        except RakkanError as refusal:
            if refusal.code not in _OF_THIS_ONE:
                raise
            return ImportedCertificate(serial_number=serial_number, outcome="refused", reason=refusal.detail[:255])
        return ImportedCertificate(serial_number=serial_number, outcome="imported", order_id=order.order_id)

    async def _record(self, before: Order, after: Order) -> None:
        if not await self.orders.record(before, after, now=self.now()):
            raise RakkanError(Code.CONFLICT, f"the order {before.order_id} was moved meanwhile; import it again")


def _waiting(orders: list[Order], authority: str) -> Order:
    """The order of these, all for one key, that waits for its certificate."""
    if not orders:
        raise RakkanError(Code.CERTIFICATE_REFUSED, f"no order at {authority} is for this key")
    for one in orders:
        if one.state in _WAITING:
            return one
    detail = f"the order {orders[0].order_id} is {orders[0].state} and waits for no certificate"
    raise RakkanError(Code.CERTIFICATE_REFUSED, detail)


def _read(der: bytes) -> x509.Certificate | None:
    try:
        certificate = x509.load_der_x509_certificate(der)
        _key_hash(certificate)
        _ = certificate.issuer, certificate.subject, certificate.serial_number, certificate.extensions
    except (*_UNREADABLE, x509.DuplicateExtension):
        return None
    return certificate


def _key_hash(holder: x509.Certificate | x509.CertificateSigningRequest) -> bytes:
    return sha256(holder.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()


def _serial_of(order: Order | None) -> str | None:
    return f"{x509.load_der_x509_certificate(order.chain[0]).serial_number:x}" if order and order.chain else None


def _check_anchored(chain: tuple[bytes, ...], ca: CertificationAuthority, authority: str) -> None:
    """Raise unless an anchor is at its end, by key and not by name alone. An end entity is no anchor."""
    last = x509.load_der_x509_certificate(chain[-1])
    if len(chain) > 1 and last in ca.anchor_certificates:
        return
    for anchor in ca.anchor_certificates:
        try:
            last.verify_directly_issued_by(anchor)
        except (*_UNREADABLE, InvalidSignature):
            continue
        return
    raise RakkanError(Code.CERTIFICATE_REFUSED, f"it does not lead to an anchor of {authority}")
