"""Who asks: the access token, opened and checked by the SAM for itself."""

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from services.sam.rows import Credential, Signer
from shared.errors import Code, RakkanError
from shared.sealing import Secrets, unseal
from shared.tokens import AccessToken, TokenReader

_SCOPE = "service"


class AccessStore(Protocol):
    async def check_token(self, token: AccessToken) -> None: ...

    async def credential(self, credential_id: str) -> Credential | None: ...

    async def parties(self, token: AccessToken, credential_id: str) -> tuple[Credential, Signer] | None: ...


@dataclass(frozen=True, slots=True)
class Parties:
    """All who have a part in one signature."""

    secrets: Secrets
    token: AccessToken
    credential: Credential
    signer: Signer


@dataclass(frozen=True)
class Access:
    """Opens what the gateway sealed for the SAM. The gateway's word that somebody may is not taken."""

    store: AccessStore
    sealing_key: X25519PrivateKey
    tokens: TokenReader

    async def caller(self, sealed: bytes, *, message: str, subject: str, now: datetime) -> tuple[Secrets, AccessToken]:
        """The secrets and the token in them; MALFORMED, TOKEN_INVALID, TOKEN_EXPIRED or SCOPE_REFUSED."""
        secrets, token = self._read(sealed, message=message, subject=subject, now=now)
        await self.store.check_token(token)
        return secrets, token

    async def credential(self, credential_id: str, token: AccessToken) -> Credential:
        """The credential of the token's tenant. Another tenant's looks as if it did not exist."""
        credential = await self.store.credential(credential_id)
        if credential is None or credential.tenant_id != token.tenant_id:
            raise RakkanError(Code.CREDENTIAL_UNKNOWN)
        return credential

    async def parties(self, sealed: bytes, *, message: str, credential_id: str, now: datetime) -> Parties:
        """`caller` and `credential`, and the signer, by one question to the database: the way of every signature."""
        secrets, token = self._read(sealed, message=message, subject=credential_id, now=now)
        found = await self.store.parties(token, credential_id)
        if found is None or found[0].tenant_id != token.tenant_id:
            raise RakkanError(Code.CREDENTIAL_UNKNOWN)
        return Parties(secrets, token, *found)

    def _read(self, sealed: bytes, *, message: str, subject: str, now: datetime) -> tuple[Secrets, AccessToken]:
        secrets = unseal(sealed, key=self.sealing_key, message=message, subject=subject)
        if secrets.access_token is None:
            raise RakkanError(Code.TOKEN_INVALID, "no access token")
        token = self.tokens.read(secrets.access_token.get_secret_value(), now=now)
        if _SCOPE not in token.scope.split():
            raise RakkanError(Code.SCOPE_REFUSED, f"scope {token.scope}")
        return secrets, token
