"""Which authenticator may approve, from when, and what may be enrolled by whom. Rules only, no I/O."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Literal

from services.sam.rows import Authenticator, Challenge, Ticket
from shared.errors import Code, RakkanError

Purpose = Literal["login", "enrollment"]


def user_handle(signer_id: str) -> bytes:
    """What a passkey keeps of its user: the random id, no name (WebAuthn 14.6.1)."""
    return signer_id.encode()


def is_usable(authenticator: Authenticator, *, now: datetime) -> bool:
    return authenticator.removed_at is None and authenticator.usable_from <= now


def usable(authenticators: Iterable[Authenticator], *, now: datetime) -> tuple[Authenticator, ...]:
    """Those that may approve now, or AUTHENTICATOR_REQUIRED."""
    found = tuple(one for one in authenticators if is_usable(one, now=now))
    if not found:
        raise RakkanError(Code.AUTHENTICATOR_REQUIRED, "the signer has none that may be used yet")
    return found


def webauthn_ids(authenticators: Iterable[Authenticator]) -> tuple[bytes, ...]:
    return tuple(one.webauthn_id for one in authenticators if one.webauthn_id is not None)


def check_may_answer(
    authenticator: Authenticator | None, *, kind: str, signer_id: str | None, now: datetime
) -> Authenticator:
    """The authenticator; EVIDENCE_REFUSED unless it is this signer's (a log-in: anybody's) and may be used now."""
    if authenticator is None or authenticator.kind != kind:
        raise RakkanError(Code.EVIDENCE_REFUSED, "an authenticator that nobody enrolled")
    if signer_id is not None and authenticator.signer_id != signer_id:
        raise RakkanError(Code.EVIDENCE_REFUSED, "another signer's authenticator")
    if authenticator.removed_at is not None:
        raise RakkanError(Code.EVIDENCE_REFUSED, "the authenticator was removed")
    if authenticator.usable_from > now:
        raise RakkanError(Code.EVIDENCE_REFUSED, "the authenticator is in its cooling-off time")
    return authenticator


def usable_from(existing: Iterable[Authenticator], *, cooling_off_s: int, now: datetime) -> datetime:
    """At once for the first a signer ever has. Every other one waits, so that its owner can see and remove it.

    Those that were removed count: whoever talks a registration authority out of them gains no time by it.
    """
    return now + timedelta(seconds=cooling_off_s) if any(True for _ in existing) else now


def check_challenge(challenge: Challenge | None, *, purpose: Purpose, now: datetime) -> Challenge:
    """The challenge, or CONTEXT_UNKNOWN, CONTEXT_SPENT, CONTEXT_EXPIRED."""
    if challenge is None or challenge.purpose != purpose:
        raise RakkanError(Code.CONTEXT_UNKNOWN)
    if challenge.spent:
        raise RakkanError(Code.CONTEXT_SPENT)
    if now >= challenge.expires_at:
        raise RakkanError(Code.CONTEXT_EXPIRED)
    return challenge


def check_ticket(ticket: Ticket | None, *, signer_id: str | None, now: datetime) -> Ticket:
    """The ticket, or TICKET_REFUSED: unknown, spent, expired, or another signer's, and no word of which."""
    if ticket is None or ticket.spent or now >= ticket.expires_at or signer_id not in (None, ticket.signer_id):
        raise RakkanError(Code.TICKET_REFUSED)
    return ticket
