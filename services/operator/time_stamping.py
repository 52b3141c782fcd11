"""What an operator can ask of the TSA connector: how the TSAs stand, and whom it would ask for a token and why."""

import argparse
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

from services.operator.terminal import NotUnderstoodError, Terminal
from shared.algorithms import Hash
from shared.contracts.base import Request
from shared.contracts.tsa_connector import AuthorityState, ExplainTimestamp, ReadAuthorities

Words = argparse.Namespace
Ask = Callable[[Request[Any]], Awaitable[Any]]

ANY_TENANT = "any"
"""Stands for a tenant that no TSA is kept for."""


def add_words(commands: "argparse._SubParsersAction[Any]") -> None:
    """`tsa`, and below it what can be asked."""
    tsa = commands.add_parser("tsa", help="show how the time-stamping authorities stand; `tsa explain` whom it asks")
    below = tsa.add_subparsers(dest="question", metavar="QUESTION")
    explain = below.add_parser("explain", help="whom the TSA connector would ask for a token now, and why")
    explain.add_argument("--class", dest="assurance_class", help="any TSA of this assurance class")
    explain.add_argument("--authority", help="this TSA and no other")
    explain.add_argument("--policy", help="the policy (OID) that the token has to name")
    explain.add_argument("--hash", choices=[one.value for one in Hash], default=Hash.SHA256.value)
    explain.add_argument("--digest", help="in hex: among TSAs of one cost it decides by their weights")
    explain.add_argument("--distinct", type=int, default=1, help="so many tokens, each of another TSA")
    explain.add_argument("--archive", action="store_true", help="for an archive time stamp")
    explain.add_argument("--tenant", default=ANY_TENANT, help="of whose client")


async def tell(words: Words, ask: Ask, terminal: Terminal) -> None:
    """Ask and show."""
    await (_explain if words.question == "explain" else _states)(words, ask, terminal)


async def _states(_: Words, ask: Ask, terminal: Terminal) -> None:
    states = await ask(ReadAuthorities())
    terminal.tell_tables({"time-stamping authorities": [_row(one) for one in states.authorities]})
    terminal.progress(f"As process {states.instance} sees them, by version {states.registry_version} of the registry.")
    if states.own_offset_s is not None:
        terminal.progress(f"OUR OWN CLOCK IS OFF by {states.own_offset_s:+.1f} s, most of them say.")


def _row(one: AuthorityState) -> dict[str, Any]:
    return {
        "authority": one.authority,
        "state": one.state,
        "classes": " ".join(one.classes) or None,
        "usual": _ms(one.usual_ms),
        "p95": _ms(one.p95_ms),
        "offset": _ms(one.offset_ms),
        "certificate until": _day(one.certificate_until),
        "quota left": ", ".join(f"{q.left} of {q.requests} in {q.seconds} s" for q in one.quotas) or None,
        "why": one.why or None,
    }


async def _explain(words: Words, ask: Ask, terminal: Terminal) -> None:
    hash_ = Hash(words.hash)
    request = ExplainTimestamp(
        digest=_digest(words.digest, hash_),
        hash=hash_,
        authority=words.authority,
        assurance_class=words.assurance_class,
        policy=words.policy,
        distinct=words.distinct,
        for_archive=words.archive,
        tenant_id=words.tenant,
    )
    explained = await ask(request)
    terminal.tell_tables({explained.choice: [reason.model_dump() for reason in explained.reasons]})
    if explained.refused is not None:
        terminal.progress(f"Such a request is refused now: {explained.refused}.")


def _digest(digest: str | None, hash_: Hash) -> bytes:
    try:
        return bytes(hash_.digest_bytes) if digest is None else bytes.fromhex(digest)
    except ValueError:
        raise NotUnderstoodError("--digest is not in hex") from None


def _ms(value: float | None) -> str | None:
    return None if value is None else f"{value:.0f} ms"


def _day(at: datetime | None) -> str | None:
    return None if at is None else f"{at:%Y-%m-%d}"
