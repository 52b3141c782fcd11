"""SQL of signers."""

from dataclasses import replace

import asyncpg

from services.sam.rows import Signer
from services.sam.store.base import StoreBase, changed_one, columns, places, values
from shared.database import Connection
from shared.errors import Code, RakkanError

_SIGNER = columns(Signer)
_SIGNER_BY_ID = f"select {_SIGNER} from signers where signer_id = $1"
_SIGNER_BY_USER = f"select {_SIGNER} from signers where tenant_id = $1 and user_id = $2"
_SIGNERS = f"select {_SIGNER} from signers where $1::text is null or tenant_id = $1 order by tenant_id, user_id"
_ADD_SIGNER = f"""
    insert into signers ({_SIGNER}) values ({places(Signer)})
    on conflict do nothing
"""
_CHANGE_SIGNER = """
    update signers set pin_salt = $3, pin_verifier = $4, pin_tries_left = $5, otp_tries_left = $6, otp_last_step = $7,
        version = version + 1, mac = $8
    where signer_id = $1 and version = $2
"""


class SignerStore(StoreBase):
    async def signer(self, signer_id: str, connection: "Connection | None" = None) -> Signer:
        return self._signer(await (connection or self._reads).fetchrow(_SIGNER_BY_ID, signer_id))

    async def signer_of_user(self, tenant_id: str, user_id: str) -> Signer:
        return self._signer(await self._reads.fetchrow(_SIGNER_BY_USER, tenant_id, user_id))

    async def locked_signer(self, connection: Connection, signer_id: str) -> Signer:
        """The signer, nobody else's to change until the transaction ends."""
        return self._signer(await connection.fetchrow(f"{_SIGNER_BY_ID} for update", signer_id))

    async def signers(self, tenant_id: str | None) -> list[Signer]:
        return [self._signer(row) for row in await self._reads.fetch(_SIGNERS, tenant_id)]

    async def add_signer(self, connection: Connection, signer: Signer) -> None:
        """CONFLICT when the tenant has a signer of this name."""
        sealed = self._seal.seal(signer)
        if await connection.execute(_ADD_SIGNER, *values(sealed)) == "INSERT 0 0":
            raise RakkanError(Code.CONFLICT, f"{signer.tenant_id} has a signer {signer.user_id} already")

    async def change_signer(self, connection: Connection, signer: Signer) -> None:
        """Write the row that was read with this version; OVERLOADED when somebody else was faster."""
        sealed = self._seal.seal(replace(signer, version=signer.version + 1))
        changed = await connection.execute(
            _CHANGE_SIGNER,
            signer.signer_id,
            signer.version,
            signer.pin_salt,
            signer.pin_verifier,
            signer.pin_tries_left,
            signer.otp_tries_left,
            signer.otp_last_step,
            sealed.mac,
        )
        changed_one(changed)

    def _signer(self, row: asyncpg.Record | None) -> Signer:
        if row is None:
            raise RakkanError(Code.NOT_FOUND, "no such signer")
        return self._seal.check(Signer(**row))
