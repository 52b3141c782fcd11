"""Who asks, and by what right: tokens and SADs, opened and checked by the SAM for itself."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from services.sam.rows import Credential, Signer
from shared.contracts.issuance import CREATION, DELETION
from shared.errors import Code, RakkanError
from shared.sealing import Secrets, unseal
from shared.tokens import AccessToken, TokenReader

_SERVICE = "service"
_CREDENTIAL = "credential"
_EXPIRED = (Code.TOKEN_EXPIRED, Code.SAD_EXPIRED)


class AccessStore(Protocol):
    async def check_token(self, token: AccessToken) -> None: ...

    async def credential(self, credential_id: str) -> Credential | None: ...

    async def signer(self, signer_id: str) -> Signer: ...

    async def parties(self, token: AccessToken, credential_id: str) -> tuple[Credential, Signer] | None: ...


@dataclass(frozen=True, slots=True)
class Presented:
    """What points at an authorization: a SAD (its hash), or a token of authentication (the authorization's id)."""

    sad_hash: bytes | None = None
    authorization_id: str | None = None


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

    async def caller(
        self,
        sealed: bytes,
        *,
        message: str,
        subject: str,
        now: datetime,
        of_one_credential: bool = False,
        scopes: frozenset[str] = frozenset(),
    ) -> tuple[Secrets, AccessToken]:
        """The secrets and the token in them; MALFORMED, TOKEN_INVALID, TOKEN_EXPIRED or SCOPE_REFUSED.

        A token of scope `credential` is one authorization's, and good only where `of_one_credential` says so. `scopes`:
        what does beside `service`, a token that a signer granted for just this.
        """
        secrets, token = self._read(
            sealed,
            message=message,
            subject=subject,
            now=now,
            scopes=scopes | ({_CREDENTIAL} if of_one_credential else frozenset()),
        )
        await self.store.check_token(token)
        return secrets, token

    async def credential(
        self, credential_id: str, token: AccessToken, *, authorities: Sequence[str] | None = None
    ) -> Credential:
        """The credential the token reaches: its tenant's, its signer's, the one it names. Others look unknown, and so
        do those of other CAs than the virtual service shows.
        """
        credential = _reached(await self.store.credential(credential_id), token, authorities)
        if token.user_id is not None:
            _check_own(await self.store.signer(credential.signer_id), token)
        return credential

    async def parties(
        self,
        sealed: bytes,
        *,
        message: str,
        credential_id: str,
        now: datetime,
        authorities: Sequence[str] | None = None,
    ) -> Parties:
        """`caller` and `credential`, and the signer, by one question to the database: the way of every signature."""
        secrets, token = self._read(
            sealed, message=message, subject=credential_id, now=now, scopes=frozenset({_CREDENTIAL})
        )
        found = await self.store.parties(token, credential_id)
        if found is None:
            raise RakkanError(Code.CREDENTIAL_UNKNOWN)
        credential, signer = found
        _reached(credential, token, authorities)
        _check_own(signer, token)
        return Parties(secrets, token, credential, signer)

    async def presented(self, secrets: Secrets, token: AccessToken, credential_id: str, *, now: datetime) -> Presented:
        """What the caller presents for a signature; SAD_INVALID or SAD_EXPIRED.

        The token itself (CSC v2), such a token in the place of the SAD (v1), or a SAD of `credentials/authorize`.
        """
        if token.scope == _CREDENTIAL:
            if secrets.sad is not None:
                raise RakkanError(Code.SAD_INVALID, "beside a token that stands for it")
            return Presented(authorization_id=token.authorization_id)
        text = secrets.sad.get_secret_value() if secrets.sad else ""
        if not text:
            raise RakkanError(Code.SAD_INVALID)
        if "." not in text:
            return Presented(sad_hash=hashlib.sha256(text.encode()).digest())
        try:
            sad = self.tokens.read(text, now=now)
            await self.store.check_token(sad)
            _check_stands_for_sad(sad, token, credential_id)
        except RakkanError as refusal:
            code = Code.SAD_EXPIRED if refusal.code in _EXPIRED else Code.SAD_INVALID
            raise RakkanError(code, refusal.detail) from None
        return Presented(authorization_id=sad.authorization_id)

    def _read(
        self, sealed: bytes, *, message: str, subject: str, now: datetime, scopes: frozenset[str]
    ) -> tuple[Secrets, AccessToken]:
        secrets = unseal(sealed, key=self.sealing_key, message=message, subject=subject)
        if secrets.access_token is None:
            raise RakkanError(Code.TOKEN_INVALID, "no access token")
        token = self.tokens.read(secrets.access_token.get_secret_value(), now=now)
        if token.scope not in scopes and _SERVICE not in token.scope.split():
            raise RakkanError(Code.SCOPE_REFUSED, f"scope {token.scope}")
        if token.scope == _CREDENTIAL:
            _check_names_authorization(token)
        return secrets, token


def created_by(token: AccessToken) -> str:
    """The one credential that a signer's token of scope CREATION can make, however often it is shown."""
    return f"c{hashlib.sha256(f'creation|{token.token_id}'.encode()).hexdigest()[:31]}"


def _reached(credential: Credential | None, token: AccessToken, authorities: Sequence[str] | None) -> Credential:
    """The credential, when it is of the token's tenant and the one that a token of scope `credential` names."""
    if credential is None or credential.tenant_id != token.tenant_id:
        raise RakkanError(Code.CREDENTIAL_UNKNOWN)
    if authorities is not None and credential.authority not in authorities:
        raise RakkanError(Code.CREDENTIAL_UNKNOWN, "of a CA that this service does not show")
    if token.scope in (_CREDENTIAL, DELETION) and token.credential_id != credential.credential_id:
        raise RakkanError(Code.CREDENTIAL_UNKNOWN)
    if token.scope == CREATION and created_by(token) != credential.credential_id:
        raise RakkanError(Code.CREDENTIAL_UNKNOWN, "not the one that this token made")
    return credential


def _check_own(signer: Signer, token: AccessToken) -> None:
    """A signer's token is good for her own credentials; another's looks as if it did not exist."""
    if token.user_id is not None and signer.user_id != token.user_id:
        raise RakkanError(Code.CREDENTIAL_UNKNOWN)


def _check_names_authorization(token: AccessToken) -> None:
    if not token.authorization_id or not token.credential_id:
        raise RakkanError(Code.TOKEN_INVALID, "of scope credential, and names no authorization")


def _check_stands_for_sad(sad: AccessToken, token: AccessToken, credential_id: str) -> None:
    if sad.scope != _CREDENTIAL or sad.credential_id != credential_id:
        raise RakkanError(Code.SAD_INVALID, "a token of another kind or credential")
    _check_names_authorization(sad)
    if (sad.client_id, sad.tenant_id) != (token.client_id, token.tenant_id):
        raise RakkanError(Code.SAD_INVALID, "another client's")
    if token.user_id is not None and sad.user_id != token.user_id:
        raise RakkanError(Code.SAD_INVALID, "another user's")
    # A bound token is worth nothing without a proof by its key, and a SAD brings none: only the token beside it did.
    if sad.key_thumbprint not in (None, token.key_thumbprint):
        raise RakkanError(Code.SAD_INVALID, "bound to another key")
    if sad.certificate_thumbprint not in (None, token.certificate_thumbprint):
        raise RakkanError(Code.SAD_INVALID, "bound to another certificate")
