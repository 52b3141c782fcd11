"""What the CA connector does with a message. Nothing here waits for a CA: what is wanted becomes durable, then due."""

from collections.abc import Callable, Mapping
from datetime import datetime
from hashlib import sha256
from typing import Protocol

import structlog
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from services.ca_connector.orders import (
    CESSATION_OF_OPERATION,
    Order,
    Revocation,
    State,
    check_reason,
    check_same,
    decide,
    expect_confirmation,
    fill,
)
from services.ca_connector.queues import Desk
from shared.contracts.ca_connector import ConfirmOrder, NoteCertificate, OrderCertificate, RevokeCertificate
from shared.errors import Code, RakkanError
from shared.messaging import operation

log = structlog.get_logger()


class Store(Protocol):
    async def submit(self, wanted: Order, *, renews: str | None, key_hash: bytes) -> Order: ...

    async def order(self, order_id: str) -> Order: ...

    async def record(self, before: Order, after: Order, *, now: datetime) -> bool: ...

    async def want_revocation(self, order: Order, *, reason: int, now: datetime) -> Revocation: ...


class Queues(Protocol):
    @property
    def desks(self) -> Mapping[str, Desk]: ...

    def wake(self, authority: str) -> None: ...


class Handlers:
    def __init__(self, *, store: Store, queues: Queues, now: Callable[[], datetime]) -> None:
        self.store = store
        self.queues = queues
        self.now = now

    async def order_certificate(self, message: OrderCertificate) -> None:
        """Make the order durable; its CA's queue does the rest."""
        wanted = Order(
            message.order_id,
            message.authority,
            message.csr,
            operation.current().operation_id,
            created_at=self.now(),
            profile=message.profile,
            origin=message.origin,
        )
        order = await self.store.submit(wanted, renews=message.renews, key_hash=_key_hash(message.csr))
        check_same(order, wanted)
        self.queues.wake(order.authority)

    async def confirm_order(self, message: ConfirmOrder) -> None:
        """Note the SAM's word; what it does not want is revoked."""
        order = await self.store.order(message.order_id)
        decided = self._decide(order, message)
        if decided is not order and not await self.store.record(order, decided, now=self.now()):
            decided = self._decide(await self.store.order(message.order_id), message)
        if decided.state is State.REJECTED:
            await self.store.want_revocation(decided, reason=CESSATION_OF_OPERATION, now=self.now())
        self.queues.wake(decided.authority)

    async def note_certificate(self, message: NoteCertificate) -> None:
        """Take over a certificate that the SAM was brought by others, so that it is watched and can be revoked."""
        order = await self.store.order(message.order_id)
        filled = self._fill(order, message)
        if filled is not order and not await self.store.record(order, filled, now=self.now()):
            order = await self.store.order(message.order_id)
            filled = self._fill(order, message)
            if filled is not order and not await self.store.record(order, filled, now=self.now()):
                raise RakkanError(Code.OVERLOADED, f"order {order.order_id} moves too fast")
        self.queues.wake(order.authority)

    async def revoke_certificate(self, message: RevokeCertificate) -> None:
        """Make the wish durable. What is not issued yet is revoked when it is."""
        check_reason(message.reason)
        order = await self.store.order(message.order_id)
        if order.state is State.REJECTED and not order.chain:
            return
        await self.store.want_revocation(order, reason=message.reason, now=self.now())
        self.queues.wake(order.authority)

    def _fill(self, order: Order, message: NoteCertificate) -> Order:
        try:
            return self._expecting(order, fill(order, message.chain))
        except RakkanError as refusal:
            # It is in use and nobody here will have it revoked: people have to.
            serial = x509.load_der_x509_certificate(message.chain[0]).serial_number
            log.error(  # noqa: TRY400 - a refusal, which dispatch logs as one
                "certificate in use is not its order's", why=refusal.detail, serial_number=f"{serial:x}"
            )
            raise

    def _decide(self, order: Order, message: ConfirmOrder) -> Order:
        return self._expecting(order, decide(order, accepted=message.accepted, reason=message.reason))

    def _expecting(self, before: Order, after: Order) -> Order:
        """A CA may wait for the SAM's word on what it issued."""
        desk = self.queues.desks.get(before.authority)
        confirms = desk is not None and desk.authority.capabilities.confirms
        return expect_confirmation(after) if confirms and before.state is State.ISSUED else after


def _key_hash(csr: bytes) -> bytes:
    """Of the public key; of the whole request where it has none that can be read, which no CA will certify."""
    try:
        key = x509.load_der_x509_csr(csr).public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except (ValueError, UnsupportedAlgorithm, x509.InvalidVersion):
        key = csr
    return sha256(key).digest()
