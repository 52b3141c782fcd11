"""SQL of credentials."""

from collections.abc import Sequence
from dataclasses import fields, replace
from datetime import datetime, timedelta
from typing import Any

import asyncpg

from services.sam.rows import Credential, Signer, State
from services.sam.store.base import StoreBase, changed_one, columns, places, values
from services.sam.store.tokens import IS_REFUSED
from shared.algorithms import KeyAlgorithm, Profile
from shared.database import Connection
from shared.errors import Code, RakkanError
from shared.tokens import AccessToken

_CREDENTIAL = columns(Credential)
_CREDENTIAL_BY_ID = f"select {_CREDENTIAL} from credentials where credential_id = $1"
_CREDENTIAL_BY_ORDER = f"select {_CREDENTIAL} from credentials where order_id = $1 or renewal_id = $1"
_CREDENTIALS_OF = f"""
    select {_CREDENTIAL} from credentials where signer_id = $1 and credential_id > $2 order by credential_id limit $3
"""
_CREDENTIALS = f"""
    select {_CREDENTIAL} from credentials where $1::text is null or tenant_id = $1 order by tenant_id, credential_id
"""
_BOTH = ", ".join(f"{row.TABLE}.{field.name}" for row in (Credential, Signer) for field in fields(row))
_PARTIES = f"""
    select ({IS_REFUSED}), {_BOTH}
    from (select) as one
        left join credentials on credentials.credential_id = $4
        left join signers on signers.signer_id = credentials.signer_id
"""
_ADD_CREDENTIAL = f"""
    insert into credentials ({_CREDENTIAL})
    values ({places(Credential)})
    on conflict (credential_id) do nothing
"""
_CHANGE_CREDENTIAL = """
    update credentials set state = $3, reason = $4, share = $5, public_key = $6, order_id = $7, chain = $8,
        certificate_status = $9, not_after = $10, version = version + 1, mac = $11, key_id = $12, csr = $13,
        renewal_id = $14, ending = $15, revoke_as = $16, status_checked_at = $17, touched_at = now()
    where credential_id = $1 and version = $2
"""
_UNDER_WAY_FOR = f"""
    select {_CREDENTIAL} from credentials
    where supersedes = $1 and state in ('requested', 'generated', 'ordered') for update
"""
_PENDING = f"""
    select {_CREDENTIAL} from credentials
    where signer_id = $1 and authority = $2 and certificate_profile = $3 and supersedes is null and not one_time
        and state in ('requested', 'generated', 'ordered')
    order by credential_id limit 1
"""
_COUNT_FOR_ONCE = """
    select count(*) from credentials where signer_id = $1 and one_time and state not in ('ended', 'destroyed')
"""
# These name rows and do not read them: a row that somebody edited must not keep the others waiting.
_EXPIRED = """
    select credential_id from credentials
    where state in ('active', 'suspended') and not_after <= $1 and credential_id > $2
    order by credential_id limit 100
"""
_RENEWABLE = """
    select credential_id from credentials
        join unnest($3::text[], $4::text[], $5::int[]) as due (authority, certificate_profile, days)
            using (authority, certificate_profile)
    where state = 'active' and certificate_status = 'valid' and not one_time and renewal_id is null
        and not_after <= $1::timestamptz + days * interval '1 day' and not_after > $1
        and (reason is null or touched_at < now() - interval '1 day')
        and not exists (
            select 1 from credentials as next
            where next.supersedes = credentials.credential_id and next.touched_at > now() - interval '1 day'
        )
        and credential_id > $2
    order by credential_id limit 100
"""
# Spent, or with nothing left that could be spent. The values of a last signature can be fetched again for a while.
_SPENT = """
    select credential_id from credentials
    where one_time and state in ('requested', 'generated', 'ordered', 'active', 'suspended') and (
        (touched_at < now() - $1::interval and not exists (
            select 1 from authorizations where authorizations.credential_id = credentials.credential_id
        ))
        or (
            exists (select 1 from authorizations where authorizations.credential_id = credentials.credential_id)
            and not exists (
                select 1 from authorizations
                    left join activations on activations.authorization_id = authorizations.authorization_id
                where authorizations.credential_id = credentials.credential_id and (
                    (authorizations.expires_at > now() and not replaced and used < signatures)
                    or activations.made_at > now() - $2::interval
                )
            )
        )
    ) and credential_id > $3
    order by credential_id limit 100
"""
_NOTE_CHECKED = """
    update credentials set status_checked_at = $3, mac = $4 where credential_id = $1 and version = $2
"""
_END_AUTHORIZATIONS = "update authorizations set replaced = true where credential_id = $1 and not replaced"
_STUCK = """
    update credentials set touched_at = now()
    where credential_id in (
        select credential_id from credentials
        where (state in ('requested', 'generated', 'ended') or (state = 'refused' and share is not null))
            and touched_at < now() - $1::interval
        order by touched_at limit 100 for update skip locked
    )
    returning credential_id, state
"""


class CredentialStore(StoreBase):
    async def credential(self, credential_id: str, connection: "Connection | None" = None) -> Credential | None:
        row = await (connection or self._reads).fetchrow(_CREDENTIAL_BY_ID, credential_id)
        return self._credential(row) if row else None

    async def parties(self, token: AccessToken, credential_id: str) -> tuple[Credential, Signer] | None:
        """The credential and its signer, if there is one; TOKEN_EXPIRED when the token was revoked."""
        arguments = (token.token_id, token.client_id, token.issued_at, credential_id)
        record = await self._reads.fetchrow(_PARTIES, *arguments)
        refused, *found = record or (True,)
        if refused:
            raise RakkanError(Code.TOKEN_EXPIRED, "revoked")
        split = len(fields(Credential))
        if found[0] is None:
            return None
        signer = self._seal.check(Signer(**_named(Signer, found[split:])))
        return self._credential(_named(Credential, found[:split])), signer

    async def locked_credential(self, connection: Connection, credential_id: str) -> Credential:
        row = await connection.fetchrow(f"{_CREDENTIAL_BY_ID} for update", credential_id)
        if row is None:
            raise RakkanError(Code.NOT_FOUND, f"no credential {credential_id}")
        return self._credential(row)

    async def locked_credential_of_order(self, connection: Connection, order_id: str) -> Credential:
        row = await connection.fetchrow(f"{_CREDENTIAL_BY_ORDER} for update", order_id)
        if row is None:
            raise RakkanError(Code.NOT_FOUND, f"no credential with order {order_id}")
        return self._credential(row)

    async def credentials_of(self, signer_id: str, *, after: str, limit: int) -> list[Credential]:
        return [self._credential(row) for row in await self._reads.fetch(_CREDENTIALS_OF, signer_id, after, limit)]

    async def credentials(self, tenant_id: str | None) -> list[Credential]:
        return [self._credential(row) for row in await self._reads.fetch(_CREDENTIALS, tenant_id)]

    async def add_credential(self, connection: Connection, credential: Credential) -> bool:
        """False when there is one of this name already."""
        sealed = self._seal.seal(credential)
        return await connection.execute(_ADD_CREDENTIAL, *values(sealed)) != "INSERT 0 0"

    async def change_credential(self, connection: Connection, credential: Credential) -> Credential:
        """Write the row that was read with this version; OVERLOADED when somebody else was faster."""
        sealed = self._seal.seal(replace(credential, version=credential.version + 1))
        changed = await connection.execute(
            _CHANGE_CREDENTIAL,
            credential.credential_id,
            credential.version,
            credential.state.value,
            credential.reason,
            credential.share,
            credential.public_key,
            credential.order_id,
            list(credential.chain),
            credential.certificate_status,
            credential.not_after,
            sealed.mac,
            credential.key_id,
            credential.csr,
            credential.renewal_id,
            credential.ending,
            credential.revoke_as,
            credential.status_checked_at,
        )
        changed_one(changed)
        return sealed

    async def superseding(self, connection: Connection, credential_id: str) -> Credential | None:
        """The row that carries the next key of a credential, while it is under way."""
        row = await connection.fetchrow(_UNDER_WAY_FOR, credential_id)
        return self._credential(row) if row else None

    async def pending(self, signer_id: str, *, authority: str, profile: str) -> Credential | None:
        """One that is ordered and not there yet."""
        row = await self._reads.fetchrow(_PENDING, signer_id, authority, profile)
        return self._credential(row) if row else None

    async def count_for_once(self, signer_id: str) -> int:
        """How many one-time credentials a signer has that have not ended."""
        count: int = await self._reads.fetchval(_COUNT_FOR_ONCE, signer_id)
        return count

    async def expired(self, after: str, *, now: datetime) -> list[str]:
        """A page of those that have run out and not ended; the last id of a page leads to the next."""
        return [row[0] for row in await self._reads.fetch(_EXPIRED, now, after)]

    async def renewable(self, after: str, *, due: Sequence[tuple[str, str, int]], now: datetime) -> list[str]:
        """Active ones that run out soon, without a renewal under way or one that failed within a day.

        `due`: authority, profile and how many days before the end it is time.
        """
        columns = [list(column) for column in zip(*due, strict=True)]
        return [row[0] for row in await self._reads.fetch(_RENEWABLE, now, after, *columns)]

    async def spent(self, after: str, *, unused: timedelta, kept: timedelta) -> list[str]:
        """One-time credentials whose time is over: nothing was authorized for so long, or all is used or ran out.

        `kept`: how long the values of a signature can still be fetched.
        """
        return [row[0] for row in await self._reads.fetch(_SPENT, unused, kept, after)]

    async def end_authorizations(self, connection: Connection, credential_id: str) -> None:
        """What was authorized for the old key is not good for the new one: its signer saw another certificate."""
        await connection.execute(_END_AUTHORIZATIONS, credential_id)

    async def note_checked(self, connection: Connection, credential: Credential) -> None:
        """When its CA last said what the row says. The row is locked by the caller.

        Not a new version: whoever reads the row to change it is not in the way of what is noted every hour.
        """
        mac = self._seal.seal(credential).mac
        known = (credential.credential_id, credential.version)
        changed_one(await connection.execute(_NOTE_CHECKED, *known, credential.status_checked_at, mac))

    async def touch_stuck(self, connection: Connection, *, older: timedelta) -> list[tuple[str, State]]:
        """Credentials whose next step has not come for so long, taken so that nobody else takes them now."""
        return [(row["credential_id"], State(row["state"])) for row in await connection.fetch(_STUCK, older)]

    def _credential(self, row: asyncpg.Record | dict[str, Any]) -> Credential:
        values = dict(row)
        values["key_algorithm"] = KeyAlgorithm(values["key_algorithm"])
        values["profile"] = Profile(values["profile"])
        values["state"] = State(values["state"])
        values["chain"] = tuple(values["chain"])
        return self._seal.check(Credential(**values))


def _named(row: type[Signer | Credential], found: list[Any]) -> dict[str, Any]:
    return {field.name: value for field, value in zip(fields(row), found, strict=True)}
