"""What happens on each method of the CSC: secrets are sealed, a room is asked, the answer is checked. Knows no HTTP."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol, TypeVar

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from services.gateway.certificates import check_values, read_certificate
from services.gateway.csc import model
from services.gateway.csc.model import SAD, Signatures
from services.gateway.refusals import CSCError, no_timestamp
from services.gateway.selection import Selection
from shared.algorithms import SignatureAlgorithm
from shared.contracts import authentication, sam, tsa_connector
from shared.contracts.base import Message, Reply, Request
from shared.contracts.sam import Authorized, CredentialDescribed, CredentialFacts, CredentialPage
from shared.contracts.tsa_connector import TimestampToken
from shared.errors import Code, RakkanError
from shared.registry.model import TimestampChoice
from shared.sealing import Secrets, seal, unseal
from shared.tokens import AccessToken
from shared.trust import Trust

R = TypeVar("R", bound=Reply)

_PAGES_MAX = 10
_INLINE_MAX = 4
"""Up to so many values are verified on the loop; more would hold up other clients, and go to a thread."""


class Bus(Protocol):
    async def ask(self, request: Request[R]) -> R: ...


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, as the token says. The SAM reads the token again for itself."""

    token: str = field(repr=False)
    facts: AccessToken
    selection: Selection
    """The trust services it gets."""


Action = Callable[[Caller, Any], Awaitable[Any]]


class Handlers:
    def __init__(self, bus: Bus, *, trust: Trust, sealing_key: X25519PrivateKey) -> None:
        self._bus = bus
        self._trust = trust
        self._sealing_key = sealing_key

    def actions(self) -> Mapping[type, Action]:
        """What is done for each kind of call."""
        return {
            model.ListCredentials: self.list_credentials,
            model.DescribeCredential: self.describe_credential,
            model.Authorize: self.authorize,
            model.Extend: self.extend,
            model.AskFactor: self.ask_factor,
            model.SignHash: self.sign_hash,
            model.Timestamp: self.timestamp,
        }

    async def list_credentials(self, caller: Caller, call: model.ListCredentials) -> CredentialPage:
        """One page, or page after page where the version knows none."""
        authorities = _seen(call.authorities, caller.selection.visible_authorities)
        if authorities == ():
            return CredentialPage(credentials=())
        found: list[CredentialFacts] = []
        page_token = call.page_token
        for _ in range(_PAGES_MAX if call.whole else 1):
            page = await self._bus.ask(
                sam.ListCredentials(
                    secrets=self.sealed(caller, sam.ListCredentials),
                    user_id=call.user_id,
                    only_valid=call.only_valid,
                    results_max=call.results_max,
                    page_token=page_token,
                    authorities=authorities,
                )
            )
            found += [_current(facts, caller.selection) for facts in page.credentials]
            page_token = page.next_page_token
            if page_token is None:
                break
        return CredentialPage(credentials=tuple(found), next_page_token=page_token)

    async def describe_credential(self, caller: Caller, call: model.DescribeCredential) -> CredentialDescribed:
        authorities = _seen(call.authorities, caller.selection.visible_authorities)
        if authorities == ():
            raise RakkanError(Code.CREDENTIAL_UNKNOWN, "of none of the CAs that were named")
        facts = await self.describe(caller, call.credential_id, authorities=authorities)
        return CredentialDescribed(credential=facts)

    async def authorize(self, caller: Caller, call: model.Authorize) -> SAD:
        """Hand the factors to the SAM, sealed, and the SAD it made to the client."""
        answer = await self._bus.ask(
            sam.Authorize(
                secrets=self.sealed(caller, sam.Authorize, call.credential_id, pin=call.pin, otp=call.otp),
                credential_id=call.credential_id,
                authorities=caller.selection.visible_authorities,
                signatures=call.signatures,
                digests=call.digests,
                hash=call.hash,
                description=call.description,
            )
        )
        return self._opened(answer, sam.Authorize, call.credential_id)

    async def extend(self, caller: Caller, call: model.Extend) -> SAD:
        answer = await self._bus.ask(
            sam.ExtendAuthorization(
                secrets=self.sealed(caller, sam.ExtendAuthorization, call.credential_id, sad=call.sad),
                credential_id=call.credential_id,
                authorities=caller.selection.visible_authorities,
                digests=call.digests,
                hash=call.hash,
            )
        )
        return self._opened(answer, sam.ExtendAuthorization, call.credential_id)

    async def ask_factor(self, caller: Caller, call: model.AskFactor) -> None:
        """Nothing is sent: the signer's app makes the password. The SAM says whether it would be taken now."""
        await self._bus.ask(
            sam.CheckFactor(
                secrets=self.sealed(caller, sam.CheckFactor, call.credential_id),
                credential_id=call.credential_id,
                authorities=caller.selection.visible_authorities,
                factor=call.factor,
            )
        )

    async def sign_hash(self, caller: Caller, call: model.SignHash) -> Signatures:
        """Have the SAM spend the authorization, and let no value out that does not verify."""
        signed = await self._bus.ask(
            sam.SignHash(
                secrets=self.sealed(caller, sam.SignHash, call.credential_id, sad=call.sad),
                credential_id=call.credential_id,
                authorities=caller.selection.visible_authorities,
                digests=call.digests,
                scheme=call.algorithm.scheme,
                hash=call.algorithm.hash,
                salt_bytes=call.algorithm.salt_bytes,
            )
        )
        await _check(signed, call.algorithm, call.digests)
        return Signatures(signed.values)

    async def timestamp(self, caller: Caller, call: model.Timestamp) -> TimestampToken:
        """Of the TSA that was named, or is the default.

        The SAM has no part in this, so authentication is asked whether the access token is alive.
        """
        choice = caller.selection.timestamps(
            authority=call.authority, assurance_class=call.assurance_class, today=datetime.now(UTC).date()
        )
        sealed = seal(
            Secrets.of(access_token=caller.token),
            to=self._trust.sealing_key("authentication"),
            message=authentication.CheckToken.TYPE,
        )
        await self._bus.ask(authentication.CheckToken(token=sealed))
        try:
            return await self.stamp(call, choice, tenant_id=caller.facts.tenant_id, client_id=caller.facts.client_id)
        except RakkanError as error:
            if error.code is not Code.TSA_UNAVAILABLE or choice is None:
                raise
            refusal = no_timestamp(authority=choice.authority, assurance_class=choice.assurance_class)
            raise CSCError(refusal) from None

    async def stamp(
        self, call: model.Timestamp, choice: TimestampChoice | None, *, tenant_id: str, client_id: str
    ) -> TimestampToken:
        """A token, on behalf of whoever was let in."""
        answer = await self._bus.ask(
            tsa_connector.Timestamp(
                digest=call.digest,
                hash=call.hash,
                nonce=call.nonce,
                authority=choice.authority if choice else None,
                assurance_class=choice.assurance_class if choice else None,
                policy=call.policy,
                certificate_requested=call.certificate_requested,
                tenant_id=tenant_id,
                client_id=client_id,
            )
        )
        return answer.tokens[0]

    async def subject_of(self, caller: Caller, credential_id: str) -> str:
        """Whom the credential's certificate names: v1 says so when it has expired (CSC 1.0.4.0 11.9)."""
        described = await self.describe(caller, credential_id, authorities=caller.selection.visible_authorities)
        certificates = described.certificates
        return read_certificate(certificates[0]).subject if certificates else ""

    async def describe(
        self, caller: Caller, credential_id: str, *, authorities: tuple[str, ...] | None = None
    ) -> CredentialFacts:
        """What the SAM knows of it, with the status of its certificate only while that is of now."""
        answer = await self._bus.ask(
            sam.DescribeCredential(
                secrets=self.sealed(caller, sam.DescribeCredential, credential_id),
                credential_id=credential_id,
                authorities=authorities,
            )
        )
        return _current(answer.credential, caller.selection)

    def sealed(self, caller: Caller, message: type[Message], subject: str = "", **secrets: str | None) -> bytes:
        """The token and what else is secret, readable to the SAM alone and for this message alone."""
        return seal(
            Secrets.of(access_token=caller.token, **secrets),
            to=self._trust.sealing_key("sam"),
            message=message.TYPE,
            subject=subject,
        )

    def _opened(self, answer: Authorized, message: type[Message], subject: str) -> SAD:
        secrets = unseal(answer.sad, key=self._sealing_key, message=message.TYPE, subject=subject)
        if secrets.sad is None:
            raise RakkanError(Code.INTERNAL, f"the answer to {message.TYPE} holds no SAD")
        return SAD(secrets.sad.get_secret_value(), answer.expires_in_s, subject)


def _seen(wanted: tuple[str, ...] | None, visible: tuple[str, ...] | None) -> tuple[str, ...] | None:
    """Of which CAs credentials are seen: those that the request names, of those that the service shows."""
    if wanted is None:
        return visible
    return tuple(name for name in dict.fromkeys(wanted) if visible is None or name in visible)


def _current(facts: CredentialFacts, selection: Selection) -> CredentialFacts:
    """`valid` is said only while the CA said so lately enough (CSC 11.5); bad news stays news."""
    ca = selection.registry.certification_authorities.get(facts.authority)
    if ca is None or facts.status_checked_at is None or facts.certificate_status != "valid":
        return facts
    if datetime.now(UTC) - facts.status_checked_at <= timedelta(seconds=ca.revocation.max_age_s):
        return facts
    return facts.model_copy(update={"certificate_status": None})


async def _check(signed: sam.Signed, algorithm: SignatureAlgorithm, digests: tuple[bytes, ...]) -> None:
    if len(digests) <= _INLINE_MAX:
        check_values(signed.certificate, algorithm, digests, signed.values)
    else:
        await asyncio.to_thread(check_values, signed.certificate, algorithm, digests, signed.values)
