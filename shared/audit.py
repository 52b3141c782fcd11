"""The audit log: each writer's chain of leaves, written in the transaction of the change it tells of.

A leaf holds facts by identifier and digest. It never holds a PIN, an OTP, a SAD, a token or a document (EN 419 241-1
SRG_AR.4). Every decision leaves one (promise G10); if it cannot be written, the change does not happen.
"""

import hashlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from shared import VERSION
from shared.database import Connection, Pool
from shared.messaging import operation

SCHEMA_VERSION = 1
_DOMAIN = b"rakkan-audit/1"

_START = "insert into audit_chains (chain_id, head) values ($1, $2) on conflict (chain_id) do nothing"
_APPEND = """
    with tail as (
        select seq, head from audit_chains where chain_id = $1 for update
    ), leaf as (
        insert into audit_leaves (chain_id, seq, previous_hash, record, hash)
        select $1, tail.seq + 1, tail.head, $2,
               sha256($3 || int4send(length(convert_to($1, 'UTF8'))) || convert_to($1, 'UTF8')
                      || int8send(tail.seq + 1) || tail.head || $2)
        from tail
        returning seq, hash
    )
    update audit_chains set seq = leaf.seq, head = leaf.hash from leaf where audit_chains.chain_id = $1
"""


class Leaf(BaseModel):
    """One event (EN 419 241-1 SRG_AA.7: time, type, who, outcome).

    The fields are final: new ones come only with a new `schema_version`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = SCHEMA_VERSION
    event_type: str
    time: datetime
    actor_type: Literal["client", "signer", "operator", "room"]
    actor_id: str
    tenant: str | None = None
    subject: Mapping[str, str] = {}
    """Identifiers of what it is about: `credential_id`, `key_id`, `certificate_hash`, `order_id`…"""
    outcome: Literal["success", "refused", "failure"] = "success"
    reason_code: str | None = None
    request_id: str
    correlation_id: str | None = None
    digest_set_hash: str | None = None
    """SHA-256 over the digests in order, each with its length before it."""
    sad_hash: str | None = None
    token_hash: str | None = None
    policy_id: str | None = None
    software_version: str = VERSION
    hsm_serial: str | None = None


class AuditWriter:
    """The chain of one process."""

    def __init__(self, room: str, instance: str) -> None:
        self.chain_id = f"{room}/{instance}"

    async def start(self, pool: Pool) -> None:
        """Begin the chain; its first head names it, so that chains cannot be exchanged."""
        await pool.execute(_START, self.chain_id, hashlib.sha256(_DOMAIN + self.chain_id.encode()).digest())

    async def write(self, connection: Connection, event_type: str, **facts: Any) -> None:
        """Append one leaf in the caller's transaction. Call it last: the chain is locked until the commit."""
        leaf = leaf_of(event_type, **facts)
        await connection.execute(_APPEND, self.chain_id, leaf.model_dump_json().encode(), _DOMAIN)

    async def append(self, connection: Connection, leaves: Sequence[Leaf]) -> None:
        """Append leaves of several operations in one transaction, in order; otherwise as `write`."""
        rows = [(self.chain_id, leaf.model_dump_json().encode(), _DOMAIN) for leaf in leaves]
        await connection.executemany(_APPEND, rows)


def leaf_of(event_type: str, **facts: Any) -> Leaf:
    """The leaf of an event of the operation in hand."""
    return Leaf(
        event_type=event_type,
        time=datetime.now(UTC),
        request_id=operation.current().operation_id,
        **facts,
    )


def digest_set_hash(digests: tuple[bytes, ...]) -> str:
    """What `digest_set_hash` holds."""
    state = hashlib.sha256()
    for digest in digests:
        state.update(len(digest).to_bytes(4, "big") + digest)
    return state.hexdigest()
