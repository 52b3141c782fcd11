"""How a credential ends: it stops with the commit, and what destroys its key is promised in the same one."""

from dataclasses import replace
from typing import Protocol

from services.sam.rows import Credential, Ending, State
from shared.contracts.sam import EndCredential
from shared.database import Connection
from shared.messaging import outbox

CESSATION_OF_OPERATION = 5  # RFC 5280 5.3.1
OVER = frozenset({State.ENDED, State.DESTROYED})


class Store(Protocol):
    async def superseding(self, connection: Connection, credential_id: str) -> Credential | None: ...

    async def change_credential(self, connection: Connection, credential: Credential) -> Credential: ...


async def end(
    store: Store,
    connection: Connection,
    credential: Credential,
    *,
    ending: Ending,
    reason: str,
    revoke_as: int | None,
) -> None:
    """End it, and the next key that was under way for it."""
    if credential.state in OVER:
        return
    successor = await store.superseding(connection, credential.credential_id)
    for one, why in ((credential, ending), *(((successor, "superseded"),) if successor else ())):
        ended = replace(one, state=State.ENDED, ending=why, reason=reason, revoke_as=revoke_as)
        await store.change_credential(connection, ended)
        await post_destruction(connection, one.credential_id)


async def post_destruction(connection: Connection, credential_id: str) -> None:
    await outbox.post(connection, EndCredential(credential_id=credential_id), message_id=f"end:{credential_id}")
