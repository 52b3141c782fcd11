"""What an operator can ask of the CA connector: how the CAs and their orders stand; and what became of one in doubt."""

import argparse
from collections.abc import Awaitable, Callable
from typing import Any, get_args

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from services.operator import batches
from services.operator.terminal import NotUnderstoodError, Terminal, read_file
from shared.contracts.base import Request
from shared.contracts.ca_connector import (
    AuthorityRow,
    ListAuthorities,
    ListOrders,
    NoteRevoked,
    OrderRow,
    OrderState,
    ResolveOrder,
)

Words = argparse.Namespace
Ask = Callable[[Request[Any]], Awaitable[Any]]

_OUTCOMES = ("again", "poll", "issued", "refused")


def add_words(commands: "argparse._SubParsersAction[Any]") -> None:
    """`ca`, and below it what can be asked and said."""
    ca = commands.add_parser("ca", help="test the certification authorities and show how they stand; `ca --help`")
    ca.add_argument("--last", action="store_true", help="show what the last test found instead of testing now")
    below = ca.add_subparsers(dest="question", metavar="QUESTION")
    orders = below.add_parser("orders", help="orders that have not ended, those in doubt first")
    orders.add_argument("--authority")
    orders.add_argument("--state", choices=[state.lower() for state in get_args(OrderState)])
    orders.add_argument("--most", type=int, default=100, help="how many rows (100)")
    order = below.add_parser("order", help="say what became of an order, after you looked at the CA")
    order.add_argument("id")
    order.add_argument("action", choices=["resolve"])
    order.add_argument(
        "outcome",
        choices=_OUTCOMES,
        help="again: the CA surely has nothing, place it once more; poll: ask by its handle; issued: here is the "
        "certificate; refused: it will not come",
    )
    order.add_argument("--certificate-file", help="issued: the certificate in PEM, and its chain")
    order.add_argument("--reason", help="refused: why, which the signer may read")
    revoked = below.add_parser("revoked", help="say that the CA has revoked a certificate by hand")
    revoked.add_argument("id", help="of its order")
    batches.add_words(below)


async def tell(words: Words, ask: Ask, terminal: Terminal) -> None:
    """Ask and show."""
    questions: dict[str | None, Callable[[Words, Ask, Terminal], Awaitable[None]]] = {
        None: _authorities,
        "orders": _orders,
        "order": _resolve,
        "revoked": _revoked,
        "requests": batches.export,
        "certificates": batches.import_,
    }
    await questions[words.question](words, ask, terminal)


async def _authorities(words: Words, ask: Ask, terminal: Terminal) -> None:
    found = await ask(ListAuthorities(test=not words.last))
    terminal.tell_tables({"certification authorities": [_authority(row) for row in found.authorities]})
    terminal.progress(f"By version {found.registry_version} of the registry.")
    if in_doubt := sum(row.unknown for row in found.authorities):
        terminal.progress(f"{in_doubt} in doubt: `ca orders --state unknown` shows them; look at the CA, then resolve.")


def _authority(row: AuthorityRow) -> dict[str, Any]:
    return {
        "authority": row.authority,
        "protocol": row.protocol or None,
        "reachable": row.reachable,
        "chain": row.chain or None,
        "crl": row.crl,
        "latency": None if row.latency_ms is None else f"{row.latency_ms} ms",
        "breaker": row.breaker or None,
        "submitted": row.submitted,
        "pending": row.pending,
        "unknown": row.unknown,
        "issued": row.issued,
        "confirmed": row.confirmed,
        "rejected": row.rejected,
        "to revoke": row.revocations_waiting,
    }


async def _orders(words: Words, ask: Ask, terminal: Terminal) -> None:
    state = words.state.upper() if words.state else None
    if not 1 <= words.most <= 500:  # noqa: PLR2004 - what the message bears
        raise NotUnderstoodError("--most is between 1 and 500")
    found = await ask(ListOrders(authority=words.authority, state=state, orders_max=words.most))
    terminal.tell_tables({"orders": [_order(row) for row in found.orders]})


def _order(row: OrderRow) -> dict[str, Any]:
    return {
        "order": row.order_id,
        "authority": row.authority,
        "profile": row.profile,
        "state": row.state.lower(),
        "since": f"{row.since:%Y-%m-%d %H:%M}",
        "next": f"{row.due_at:%Y-%m-%d %H:%M:%S}" if row.state in {"SUBMITTED", "PENDING"} else None,
        "serial": row.serial_number,
        "why": row.why,
        "not revoked": row.revocation,
    }


async def _resolve(words: Words, ask: Ask, terminal: Terminal) -> None:
    if (words.outcome == "issued") != bool(words.certificate_file):
        raise NotUnderstoodError("--certificate-file goes with `issued`, and with nothing else")
    chain = _chain(words.certificate_file) if words.certificate_file else ()
    await ask(ResolveOrder(order_id=words.id, outcome=words.outcome, chain=chain, reason=words.reason))
    told = {
        "again": "is placed once more",
        "poll": "is asked about again",
        "issued": "has its certificate; the SAM is checking it",
        "refused": "has ended",
    }[words.outcome]
    terminal.tell(f"The order {words.id} {told}.", {"order_id": words.id, "outcome": words.outcome})


async def _revoked(words: Words, ask: Ask, terminal: Terminal) -> None:
    await ask(NoteRevoked(order_id=words.id))
    terminal.tell(f"The certificate of {words.id} is noted as revoked.", {"order_id": words.id})


def _chain(file: str) -> tuple[bytes, ...]:
    try:
        certificates = x509.load_pem_x509_certificates(read_file(file).encode())
    except ValueError:
        raise NotUnderstoodError(f"{file} holds no certificate in PEM") from None
    return tuple(certificate.public_bytes(Encoding.DER) for certificate in certificates)
