"""The sealed envelope: who says what to whom, until when. Bytes and rules, no transport.

A sealed message is the domain prefix, nine fields and the body, each with its length before it, then an Ed25519
signature over all of that. Everything that decides anything is inside what is signed; what the broker adds is not
believed. Checks run in a fixed order, the cheap ones first, and nothing is parsed as JSON before the signature holds.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography.exceptions import InvalidSignature

from shared.errors import Code, RakkanError
from shared.messaging.topology import MESSAGE_BYTES_MAX, Route, route_of
from shared.trust import Purpose, SigningKey, Trust

_DOMAIN = b"rakkan-message/1\0"
_SIGNATURE_BYTES = 64
_NUMBER_BYTES = 8
_CLOCKS_DIFFER = timedelta(seconds=5)

REPLY = ".reply"
FAILURE = ".failure"


@dataclass(frozen=True, slots=True)
class Envelope:
    """One message as it is understood after every check."""

    type: str
    sender: str
    recipient: str
    message_id: str
    answers: str
    """The id of the request this answers, empty otherwise."""
    operation_id: str
    issued_at: datetime
    expires_at: datetime
    epoch: int
    body: bytes


def seal_envelope(envelope: Envelope, key: SigningKey) -> bytes:
    """The bytes that travel. TOO_LARGE when they would not be accepted."""
    texts = (
        key.key_id,
        envelope.type,
        envelope.sender,
        envelope.recipient,
        envelope.message_id,
        envelope.answers,
        envelope.operation_id,
    )
    numbers = (_milliseconds(envelope.issued_at), _milliseconds(envelope.expires_at), envelope.epoch)
    signed = _DOMAIN + b"".join(
        _prefixed(field)
        for field in (
            *(text.encode() for text in texts),
            *(number.to_bytes(_NUMBER_BYTES, "big") for number in numbers),
        )
    )
    signed += _prefixed(envelope.body)
    sealed = signed + key.key.sign(signed)
    if len(sealed) > MESSAGE_BYTES_MAX:
        raise RakkanError(Code.TOO_LARGE, f"a message of {len(sealed)} bytes, at most {MESSAGE_BYTES_MAX}")
    return sealed


def open_envelope(sealed: bytes, *, recipient: str, trust: Trust, now: datetime) -> Envelope:
    """The envelope, or a refusal: TOO_LARGE, MALFORMED, FORBIDDEN (sender, signature, recipient, epoch), EXPIRED."""
    if len(sealed) > MESSAGE_BYTES_MAX:
        raise RakkanError(Code.TOO_LARGE, f"a message of {len(sealed)} bytes, at most {MESSAGE_BYTES_MAX}")
    key_id, envelope, signed_bytes = _parse(sealed)
    key = trust.verifying_keys(envelope.sender, Purpose.MESSAGES).get(key_id)
    if key is None:
        raise RakkanError(Code.FORBIDDEN, "sender or key unknown to the trust bundle")
    try:
        key.verify(sealed[signed_bytes:], sealed[:signed_bytes])
    except InvalidSignature:
        raise RakkanError(Code.FORBIDDEN, f"not signed by {envelope.sender}") from None
    if envelope.recipient != recipient:
        raise RakkanError(Code.FORBIDDEN, f"addressed to {envelope.recipient}")
    if envelope.epoch != trust.epoch:
        raise RakkanError(Code.FORBIDDEN, "from before the last restore, or after the next")
    if now >= envelope.expires_at or envelope.issued_at > now + _CLOCKS_DIFFER:
        raise RakkanError(Code.EXPIRED, "the message has expired, or a clock is wrong")
    return envelope


def check_route(envelope: Envelope, *, queue: str) -> Route:
    """The route of a request or job, FORBIDDEN unless it leads to this queue from this sender."""
    route = route_of(envelope.type)
    if route.queue != queue:
        raise RakkanError(Code.FORBIDDEN, f"{envelope.type} on {queue}")
    if envelope.sender not in route.callers:
        raise RakkanError(Code.FORBIDDEN, f"{envelope.type} from {envelope.sender}")
    return route


def check_answer(envelope: Envelope, route: Route) -> None:
    """FORBIDDEN unless this envelope is an answer of the listener that was asked."""
    expected = (route.message.TYPE + REPLY, route.message.TYPE + FAILURE)
    if envelope.sender != route.listener or envelope.type not in expected:
        raise RakkanError(Code.FORBIDDEN, f"{envelope.type} from {envelope.sender} answers nothing that was asked")


def _parse(sealed: bytes) -> tuple[str, Envelope, int]:
    if not sealed.startswith(_DOMAIN):
        raise RakkanError(Code.MALFORMED, "not a sealed message")
    try:
        fields, end = _fields(sealed, start=len(_DOMAIN), count=11)
        key_id, type_, sender, recipient, message_id, answers, operation_id = (f.decode() for f in fields[:7])
        issued, expires, epoch = (_number(f) for f in fields[7:10])
        envelope = Envelope(
            type_,
            sender,
            recipient,
            message_id,
            answers,
            operation_id,
            datetime.fromtimestamp(issued / 1000, UTC),
            datetime.fromtimestamp(expires / 1000, UTC),
            epoch,
            fields[10],
        )
    except (ValueError, OverflowError, OSError):
        raise RakkanError(Code.MALFORMED, "not a sealed message") from None
    if len(sealed) - end != _SIGNATURE_BYTES:
        raise RakkanError(Code.MALFORMED, "not a sealed message")
    return key_id, envelope, end


def _fields(sealed: bytes, *, start: int, count: int) -> tuple[list[bytes], int]:
    fields = []
    for _ in range(count):
        length = int.from_bytes(sealed[start : start + 4], "big")
        end = start + 4 + length
        if end > len(sealed):
            raise ValueError("cut short")
        fields.append(sealed[start + 4 : end])
        start = end
    return fields, start


def _number(field: bytes) -> int:
    if len(field) != _NUMBER_BYTES:
        raise ValueError("not a number")
    return int.from_bytes(field, "big")


def _prefixed(field: bytes) -> bytes:
    return len(field).to_bytes(4, "big") + field


def _milliseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)
