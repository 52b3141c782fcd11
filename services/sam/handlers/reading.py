"""What partners and the operator may see of credentials and signers."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol

from services.sam.access import Access
from services.sam.authorizations import check_usable
from services.sam.rows import PASSKEY, Credential, Signer, State
from shared.algorithms import sign_algorithm_oids
from shared.contracts.issuance import CREATION
from shared.contracts.sam import (
    CredentialDescribed,
    CredentialFacts,
    CredentialPage,
    CredentialRow,
    DescribeCredential,
    Inventory,
    ListCredentials,
    ListInventory,
    SignerRow,
)
from shared.errors import Code, RakkanError

_SHOWN = frozenset(set(State) - {State.REFUSED, State.DESTROYED})
_SHOWN_DESTROYED = ("revoked", "expired")
"""What its CA or time has ended, people still look for; what they deleted themselves, they do not."""


class Store(Protocol):
    async def signer_of_user(self, tenant_id: str, user_id: str) -> Signer: ...

    async def credentials_of(self, signer_id: str, *, after: str, limit: int) -> list[Credential]: ...

    async def signers(self, tenant_id: str | None) -> list[Signer]: ...

    async def credentials(self, tenant_id: str | None) -> list[Credential]: ...


@dataclass(frozen=True)
class ReadingHandlers:
    store: Store
    access: Access
    now: Callable[[], datetime]

    async def list_credentials(self, request: ListCredentials) -> CredentialPage:
        """One page of a signer's credentials; the last id of a page is the token of the next.

        A signer's own token names her, and nobody else may be named beside it (CSC 11.4).
        """
        now = self.now()
        _, token = await self.access.caller(request.secrets, message=request.TYPE, subject="", now=now)
        if token.user_id is not None and request.user_id is not None:
            raise RakkanError(Code.FORBIDDEN, "the token names its user")
        user_id = token.user_id or request.user_id
        if not user_id:
            raise RakkanError(Code.USER_ID_REQUIRED)
        try:
            signer = await self.store.signer_of_user(token.tenant_id, user_id)
        except RakkanError as refusal:
            raise RakkanError(Code.USER_ID_UNKNOWN) if refusal.code is Code.NOT_FOUND else refusal from None
        after = request.page_token or ""
        if not after.isascii() or not after.isprintable():
            raise RakkanError(Code.PAGE_TOKEN_INVALID)
        rows = await self.store.credentials_of(signer.signer_id, after=after, limit=request.results_max + 1)
        page, more = rows[: request.results_max], len(rows) > request.results_max
        visible = request.authorities
        seen = [row for row in page if _is_listed(row) and (visible is None or row.authority in visible)]
        shown = [facts_of(row, now=now) for row in seen]
        if request.only_valid:
            shown = [facts for facts in shown if facts.enabled]
        return CredentialPage(credentials=tuple(shown), next_page_token=page[-1].credential_id if more else None)

    async def describe_credential(self, request: DescribeCredential) -> CredentialDescribed:
        now = self.now()
        _, token = await self.access.caller(
            request.secrets,
            message=request.TYPE,
            subject=request.credential_id,
            now=now,
            of_one_credential=True,
            scopes=frozenset({CREATION}),
        )
        credential = await self.access.credential(request.credential_id, token, authorities=request.authorities)
        if not _is_shown(credential):
            raise RakkanError(Code.CREDENTIAL_UNKNOWN)
        return CredentialDescribed(credential=facts_of(credential, now=now))

    async def list_inventory(self, request: ListInventory) -> Inventory:
        """Everything, for the operator: no secret, no certificate, but why something does not work."""
        signers = await self.store.signers(request.tenant_id)
        users = {signer.signer_id: signer.user_id for signer in signers}
        return Inventory(
            signers=tuple(
                SignerRow(
                    tenant_id=signer.tenant_id,
                    user_id=signer.user_id,
                    common_name=signer.common_name,
                    pin_tries_left=signer.pin_tries_left,
                    otp_tries_left=signer.otp_tries_left if signer.totp_secret else None,
                )
                for signer in signers
            ),
            credentials=tuple(
                CredentialRow(
                    credential_id=row.credential_id,
                    tenant_id=row.tenant_id,
                    user_id=users[row.signer_id],
                    description=row.description,
                    key_algorithm=row.key_algorithm,
                    authority=row.authority,
                    state=row.state.value,
                    reason=row.reason,
                    not_after=row.not_after,
                )
                for row in await self.store.credentials(request.tenant_id)
            ),
        )


def _is_shown(credential: Credential) -> bool:
    destroyed = credential.state is State.DESTROYED and credential.ending in _SHOWN_DESTROYED
    return credential.supersedes is None and (credential.state in _SHOWN or destroyed)


def _is_listed(credential: Credential) -> bool:
    """What was made for one authorization belongs to who asked for that, and to no list."""
    return _is_shown(credential) and not credential.one_time


def facts_of(credential: Credential, *, now: datetime) -> CredentialFacts:
    """What a partner sees of a credential today."""
    try:
        check_usable(credential, now=now)
    except RakkanError:
        enabled = False
    else:
        enabled = True
    return CredentialFacts(
        credential_id=credential.credential_id,
        description=credential.description,
        enabled=enabled,
        key_algorithm=credential.key_algorithm,
        sign_algorithms=sign_algorithm_oids(credential.key_algorithm),
        certificates=credential.chain,
        certificate_status=_status(credential, now=now),
        assurance=credential.assurance,
        pin_required=credential.assurance != PASSKEY,
        otp_required=credential.otp_required,
        scal="2" if credential.hashes_required else "1",
        signatures_max=credential.signatures_max,
        authority=credential.authority,
        certificate_profile=credential.certificate_profile,
        status_checked_at=credential.status_checked_at,
        renewing=credential.renewal_id is not None,
    )


def _status(credential: Credential, *, now: datetime) -> Literal["valid", "expired", "revoked", "suspended"] | None:
    if credential.not_after is None:
        return None
    if credential.certificate_status == "revoked":
        return "revoked"
    if now >= credential.not_after:
        return "expired"
    return "suspended" if credential.certificate_status == "suspended" else "valid"
