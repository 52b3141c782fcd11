"""CMP over HTTP (RFC 9810, RFC 9811, in the profile of RFC 9483), as a registration authority speaks it.

The signer's key stays in the HSM and signed the CSR. With `p10cr`, the default, the CA gets that CSR and verifies the
possession of the key itself; with `ir`, `cr` and `kur` it gets a template of the CSR's subject and key, and our word
that we verified it (`raVerified`), which it must be set up to believe. Either way the RA's own credentials protect the
message. A certificate is confirmed or rejected (certConf) after the SAM has judged it and not before.

Every answer is protected as agreed, answers this very message (transactionID, recipNonce) and was made now; errors too.
"""

import asyncio
import json
import secrets
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import Literal, Self

from cryptography import x509
from cryptography.x509.oid import NameOID
from pydantic import Field, model_validator

from services.ca_connector.authorities import Capabilities, Health, Surroundings
from services.ca_connector.authorities import cmp_messages as cmp
from services.ca_connector.authorities.cmp_protection import MAC, Protection, Signature
from services.ca_connector.certificates import chain_for, read_certificates
from services.ca_connector.client import Peer
from services.ca_connector.orders import Issued, Order, Outcome, Pending, Refused
from shared.errors import Code, RakkanError
from shared.registry import CertificationAuthority
from shared.registry.model import PEM, URL, Entry, Label, SecretName
from shared.settings import SettingsError

PROTOCOL = "cmp"
_MEDIA_TYPE = "application/pkixcmp"
_ANSWER_BYTES_MAX = 65_536
"""Of types that are read element by element, before anything is verified: what is larger would hold up the room."""
_NONCE_BYTES = 16
_TAGS = {"ir": cmp.IR, "cr": cmp.CR, "p10cr": cmp.P10CR, "kur": cmp.KUR}
_REPLIES = {"ir": "ip", "cr": "cp", "p10cr": "cp", "kur": "kup"}
_OF_P10CR = -1
_OUR_CREDENTIALS = frozenset({"badMessageCheck", "wrongIntegrity", "signerNotTrusted", "notAuthorized"})
_LATER = frozenset({"systemUnavail", "timeNotAvailable"})
_HEARD = frozenset({"certConfirmed", "badRecipientNonce"})
_ASTRAY = frozenset({"badRecipientNonce", "badSenderNonce", "transactionIdInUse", "systemFailure"})
"""The transaction is not known there as it is here: whether a certificate came of it cannot be told."""


class Connection(Entry):
    url: URL
    """Whole, with the path that names the CA or profile there."""
    recipient: Label | None = None
    """The CA's name (RFC 4514); nothing: that of the first anchor."""
    reference: Label | None = None
    secret: SecretName | None = None
    """What both sides share, for protection by a MAC, and the reference it is known there under."""
    mac: Literal["pbm", "pbmac1"] = "pbm"
    key: SecretName | None = None
    """PEM file of the RA's certificate, its issuers and its key, for protection by signatures."""
    responders: tuple[PEM, ...] = ()
    """Who signs the answers, or issues a certificate for cmcCA or cmcRA (RFC 9483 1.6) to who does."""
    request: Literal["p10cr", "ir", "cr"] = "p10cr"
    renewal: Literal["p10cr", "ir", "cr", "kur"] = "p10cr"
    implicit_confirm: bool = False
    """Ask to be spared the confirmation. The CA then takes the SAM's no for a wish to revoke, and no more."""
    clock_tolerance_s: int = Field(default=300, ge=1, le=86_400)
    tls_anchors: tuple[PEM, ...] = ()
    client_certificate: SecretName | None = None

    @model_validator(mode="after")
    def _is_protected_in_one_way(self) -> Self:
        by_mac = self.secret is not None and self.reference is not None
        by_signature = self.key is not None and bool(self.responders)
        if by_mac == by_signature or (self.secret is not None) == (self.key is not None):
            raise ValueError("name either reference and secret, or key and responders")
        return self


def open(ca: CertificationAuthority, connection: Connection, surroundings: Surroundings) -> "CMP":  # noqa: A001 - the name all adapters have
    files = surroundings.secrets
    certificate = connection.client_certificate
    peer = Peer.open(
        connection.url,
        timeout_s=ca.timeout_s,
        answer_bytes_max=_ANSWER_BYTES_MAX,
        connections_max=ca.concurrency_max,
        tls_anchors=connection.tls_anchors,
        client_certificate=None if certificate is None else files.secret_file(certificate),
    )
    protection: Protection
    if connection.key is not None:
        responders = tuple(x509.load_pem_x509_certificate(one.encode()) for one in connection.responders)
        protection = Signature(files.secret_file(connection.key), responders=responders)
    else:
        reference, secret = connection.reference or "", files.secret(connection.secret or "")
        protection = MAC(reference=reference, secret=secret, pbmac1=connection.mac == "pbmac1")
    return CMP(ca, connection, peer=peer, protection=protection, now=surroundings.now)


@dataclass(frozen=True)
class Transaction:
    """What goes on between us and the CA about one certificate; the poll handle is this as JSON."""

    identifier: str
    """Hex, as the nonce."""
    request: str
    request_id: int
    nonce: str = ""
    """The CA's last: what we say next answers it."""
    confirmed: bool = False
    """Implicitly: there is nothing to confirm."""

    @classmethod
    def begin(cls, request: str) -> Self:
        return cls(secrets.token_hex(_NONCE_BYTES), request, _OF_P10CR if request == "p10cr" else 0)

    @classmethod
    def load(cls, order: Order) -> Self:
        if order.handle is None:
            raise RakkanError(Code.INDETERMINATE, f"the transaction of order {order.order_id} is lost")
        return cls(**json.loads(order.handle))

    def dump(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    def after(self, reply: cmp.Reply) -> Self:
        return replace(self, nonce=reply.nonce.hex())


class CMP:
    def __init__(
        self,
        ca: CertificationAuthority,
        connection: Connection,
        *,
        peer: Peer,
        protection: Protection,
        now: Callable[[], datetime],
    ) -> None:
        self.ca = ca
        self.connection = connection
        self.peer = peer
        self.protection = protection
        self.now = now
        self.capabilities = Capabilities(polls=True, revokes=True, renews=connection.renewal == "kur", confirms=True)
        self.recipient = _recipient(ca, connection)

    async def submit(self, order: Order) -> Outcome:
        kind = self.connection.request if order.previous is None else self.connection.renewal
        transaction = Transaction.begin(kind)
        csr = x509.load_der_x509_csr(order.csr)
        if kind == "p10cr":
            body = order.csr
        else:
            replaced = order.previous if kind == "kur" else None
            old = None if replaced is None else x509.load_der_x509_certificate(replaced.chain[0])
            body = cmp.certificate_request(csr, replaces=old)
        told = cmp.general_info(
            profile=self.ca.profiles[order.profile].ca_profile, implicit_confirm=self.connection.implicit_confirm
        )
        reply = await self._exchange(transaction, _TAGS[kind], body, general_info=told, once=True)
        return self._outcome(order, transaction.after(reply), reply)

    async def poll(self, order: Order) -> Outcome:
        """A CA that heard us and whose answer was lost expects another nonce the next time: that is INDETERMINATE."""
        transaction = Transaction.load(order)
        body = cmp.poll_request(transaction.request_id)
        reply = await self._exchange(transaction, cmp.POLL_REQ, body)
        transaction = transaction.after(reply)
        if reply.kind == "pollRep":
            return Pending(transaction.dump(), self.now() + timedelta(seconds=cmp.check_after_s(reply)))
        if reply.kind == "error" and not _ASTRAY.isdisjoint(cmp.error_status(reply).failures):
            raise RakkanError(Code.INDETERMINATE, f"the CA lost the transaction: {cmp.error_status(reply)}")
        return self._outcome(order, transaction, reply)

    async def confirm(self, order: Order, *, accepted: bool) -> None:
        """certConf (RFC 9810 5.3.18). After a no the CA revokes what it issued, if it ever published it."""
        transaction = Transaction.load(order)
        if transaction.confirmed:
            return
        certificate = x509.load_der_x509_certificate(order.chain[0])
        body, version = cmp.certificate_confirmation(certificate, transaction.request_id, accepted=accepted)
        reply = await self._exchange(transaction, cmp.CERT_CONF, body, version=version)
        if reply.kind == "error":
            status = cmp.error_status(reply)
            # Between its certificate and this nothing else is said: with another nonce there, it heard this before.
            if not _HEARD.isdisjoint(status.failures):
                return
            raise _refusal(status) or RakkanError(Code.AUTHORITY_REFUSED, f"not confirmed: {status}")
        _expect(reply, "pkiconf")

    async def revoke(self, order: Order, *, reason: int, at: datetime) -> None:  # noqa: ARG002 - the CA takes its own time
        certificate = x509.load_der_x509_certificate(order.chain[0])
        body = cmp.revocation_request(certificate, reason)
        reply = await self._exchange(Transaction.begin("rr"), cmp.RR, body)
        _expect(reply, "rp", "error")
        status = cmp.error_status(reply) if reply.kind == "error" else cmp.revocation_status(reply)
        if status.status in cmp.REVOKED or "certRevoked" in status.failures:
            return
        if status.status == cmp.WAITING:
            raise RakkanError(Code.AUTHORITY_UNAVAILABLE, "the revocation waits at the CA")
        raise _refusal(status) or RakkanError(Code.AUTHORITY_REFUSED, f"not revoked: {status}")

    async def check(self) -> Health:
        """Asks for the CA's certificates. A CA that offers none has answered under its protection nevertheless."""
        reply = await self._exchange(Transaction.begin("genm"), cmp.GENM, cmp.ca_certificates_request())
        _expect(reply, "genp", "error")
        if reply.kind == "error":
            refusal = _refusal(cmp.error_status(reply))
            if refusal is not None:
                raise refusal
            return Health()
        return Health(tuple(one for der in cmp.ca_certificates(reply) for one in read_certificates(der)))

    async def close(self) -> None:
        await self.peer.close()

    def _outcome(self, order: Order, transaction: Transaction, reply: cmp.Reply) -> Outcome:
        _expect(reply, _REPLIES[transaction.request], "error")
        if reply.kind == "error":
            status = cmp.error_status(reply)
            if status.status == cmp.WAITING:  # delayed delivery (RFC 9483 4.4)
                return Pending(transaction.dump())
            refusal = _refusal(status)
            if refusal is not None:
                raise refusal
            return Refused(str(status))
        response = cmp.certificate_response(reply)
        # Some say 0 to a p10cr, which has no identifier: it is theirs from here on.
        if response.request_id not in {transaction.request_id, 0 if transaction.request == "p10cr" else None}:
            raise RakkanError(Code.AUTHORITY_UNTRUSTED, "an answer to another request for a certificate")
        transaction = replace(transaction, request_id=response.request_id)
        if response.status.status == cmp.WAITING:
            return Pending(transaction.dump())
        if response.status.status not in cmp.GRANTED:
            refusal = _refusal(response.status)
            if refusal is not None:
                raise refusal
            return Refused(str(response.status))
        if not response.certificate:
            raise RakkanError(Code.AUTHORITY_UNTRUSTED, "granted, but no certificate came")
        more = (one for der in (*reply.certificates, *response.above) for one in read_certificates(der))
        chain = chain_for(
            order.csr,
            read_certificates(response.certificate),
            more=(*self.ca.intermediate_certificates, *more),
        )
        confirmed = self.connection.implicit_confirm and reply.implicitly_confirmed
        return Issued(chain, replace(transaction, confirmed=confirmed).dump())

    async def _exchange(
        self,
        transaction: Transaction,
        tag: int,
        content: bytes,
        *,
        general_info: bytes = b"",
        version: int = cmp.CMP2000,
        once: bool = False,
    ) -> cmp.Reply:
        """Say this, and give back what is surely the answer to it."""
        seal, nonce = self.protection.seal(), secrets.token_bytes(_NONCE_BYTES)
        header = cmp.Header(
            sender=self.protection.sender,
            recipient=self.recipient,
            time=self.now(),
            algorithm=seal.algorithm,
            transaction=bytes.fromhex(transaction.identifier),
            nonce=nonce,
            key_id=self.protection.key_id,
            answers=bytes.fromhex(transaction.nonce),
            general_info=general_info,
            version=version,
        ).encode()
        body = cmp.explicit(tag, content)
        protection = seal.protect(cmp.protected_part(header, body))
        answer = await self.peer.request(
            "POST",
            self.connection.url,
            content=cmp.message(header, body, protection, self.protection.certificates),
            headers={"content-type": _MEDIA_TYPE},
            expects=(_MEDIA_TYPE,),
            once=once,
        )
        if answer.content_type != _MEDIA_TYPE:
            raise RakkanError(Code.AUTHORITY_UNTRUSTED, f"HTTP status {answer.status} without a CMP message")
        reply = await asyncio.to_thread(cmp.read, answer.body)  # it takes milliseconds, and others wait
        self._check(reply, transaction=bytes.fromhex(transaction.identifier), nonce=nonce)
        return reply

    def _check(self, reply: cmp.Reply, *, transaction: bytes, nonce: bytes) -> None:
        """RFC 9810 5.1.1 and RFC 9483 3.5. What an unprotected error says is for people to read and decides nothing."""
        now = self.now()
        if not reply.protection or not reply.algorithm:
            told = f": {cmp.error_status(reply)}" if reply.kind == "error" else ""
            raise RakkanError(Code.AUTHORITY_UNTRUSTED, f"an unprotected {reply.kind}{told}")
        self.protection.check(reply, now=now)
        if reply.version not in {cmp.CMP2000, cmp.CMP2021}:
            raise RakkanError(Code.AUTHORITY_UNTRUSTED, f"an answer of version {reply.version}")
        if reply.transaction != transaction:
            raise RakkanError(Code.AUTHORITY_UNTRUSTED, "an answer in another transaction")
        if reply.answers != nonce:
            raise RakkanError(Code.AUTHORITY_UNTRUSTED, "an answer to another message")
        if len(reply.nonce) < _NONCE_BYTES:
            raise RakkanError(Code.AUTHORITY_UNTRUSTED, "an answer without a nonce of its own")
        tolerance = timedelta(seconds=self.connection.clock_tolerance_s)
        if reply.time is not None and abs(reply.time - now) > tolerance:
            raise RakkanError(Code.AUTHORITY_UNTRUSTED, f"an answer of {reply.time:%Y-%m-%d %H:%M:%S} UTC")


def _refusal(status: cmp.Status) -> RakkanError | None:
    """What a rejection is when it is not about the request itself."""
    if not _OUR_CREDENTIALS.isdisjoint(status.failures):
        return RakkanError(Code.AUTHORITY_REFUSED, f"our credentials are refused: {status}")
    if not _LATER.isdisjoint(status.failures):
        return RakkanError(Code.AUTHORITY_UNAVAILABLE, str(status))
    return None


def _expect(reply: cmp.Reply, *kinds: str) -> None:
    if reply.kind not in kinds:
        raise RakkanError(Code.AUTHORITY_UNTRUSTED, f"a {reply.kind} where {kinds[0]} was due")


def _recipient(ca: CertificationAuthority, connection: Connection) -> bytes:
    if connection.recipient is not None:
        try:
            return x509.Name.from_rfc4514_string(connection.recipient, {"E": NameOID.EMAIL_ADDRESS}).public_bytes()
        except ValueError as error:
            raise SettingsError(f"the recipient {connection.recipient!r} is no name: {error}") from None
    if not ca.anchor_certificates:
        raise SettingsError("a CA that is spoken to by CMP needs a recipient or an anchor")
    return ca.anchor_certificates[0].subject.public_bytes()
