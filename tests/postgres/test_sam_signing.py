"""The SAM's way of a signature over a real PostgreSQL: what it allows, and everything it refuses."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from deploy.local.stack import Stack
from services.sam.rows import Credential, State
from shared.algorithms import Hash, Scheme
from shared.audit import AuditWriter
from shared.contracts.sam import (
    AddSigner,
    Authorize,
    Authorized,
    CheckFactor,
    DescribeCredential,
    ExtendAuthorization,
    ListCredentials,
    RevokeTokens,
    Signed,
    SignHash,
    UnlockSigner,
)
from shared.database import Pool, connect_pool
from shared.errors import Code, RakkanError
from shared.messaging import operation
from shared.sealing import unseal
from shared.settings import Database
from tests.support.sam import PIN, MemoryToken, SAMUnderTest

DIGEST, OTHER, THIRD = b"1" * 32, b"2" * 32, b"3" * 32


@pytest.fixture(scope="module")
async def pool(database: Stack) -> AsyncIterator[Pool]:
    settings = Database(
        port=database.postgres.port, password_file=database.keys.password_file("sam", "database"), connections_max=20
    )
    pool = await connect_pool(settings, "sam")
    yield pool
    await pool.close()


@pytest.fixture
async def sam(pool: Pool) -> SAMUnderTest:
    audit = AuditWriter("sam", os.urandom(4).hex())
    await audit.start(pool)
    return SAMUnderTest(pool, audit, os.urandom(32), MemoryToken())


@dataclass
class Party:
    """A partner's client with one signer, as the gateway would speak for it."""

    sam: SAMUnderTest
    user_id: str
    signer_id: str
    totp_secret: str | None = None

    async def authorize(self, credential: Credential, *, pin: str | None = PIN, **changes: Any) -> Authorized:
        token, otp = changes.pop("access_token", None), changes.pop("otp", None)
        fields: dict[str, Any] = {"credential_id": credential.credential_id, "signatures": 1} | changes
        secrets = {"pin": pin, "otp": otp} | ({"access_token": token} if token else {})
        sealed = self.sam.sealed(Authorize, fields["credential_id"], **secrets)
        with operation.begin("gateway", timeout_s=20):
            return await self.sam.signing.authorize(Authorize(secrets=sealed, **fields))

    async def sad(self, credential: Credential, **changes: Any) -> str:
        authorized = await self.authorize(credential, **changes)
        return self.sam.open_sad(authorized.sad, Authorize, credential.credential_id)

    async def sign(self, credential: Credential, sad: str | None, *digests: bytes, **changes: Any) -> Signed:
        token = changes.pop("access_token", None) or self.sam.access_token()
        request = SignHash(
            secrets=self.sam.sealed(SignHash, credential.credential_id, sad=sad, access_token=token),
            credential_id=credential.credential_id,
            digests=digests or (DIGEST,),
            **({"scheme": Scheme.ECDSA, "hash": Hash.SHA256} | changes),
        )
        with operation.begin("gateway", timeout_s=20):
            return await self.sam.signing.sign_hash(request)

    async def extend(self, credential: Credential, sad: str, **changes: Any) -> str:
        request = ExtendAuthorization(
            secrets=self.sam.sealed(ExtendAuthorization, credential.credential_id, sad=sad),
            credential_id=credential.credential_id,
            **changes,
        )
        with operation.begin("gateway", timeout_s=20):
            authorized = await self.sam.signing.extend(request)
        return self.sam.open_sad(authorized.sad, ExtendAuthorization, credential.credential_id)


async def enrol(sam: SAMUnderTest, *, with_totp: bool = False) -> Party:
    user_id = f"user-{os.urandom(4).hex()}"
    sealed = sam.sealed(AddSigner, user_id, pin=PIN)
    with operation.begin("operator", timeout_s=20):
        added = await sam.enrolling.add_signer(
            AddSigner(tenant_id="acme", user_id=user_id, common_name="Hanako", secrets=sealed, with_totp=with_totp)
        )
    secret = None
    if added.totp_secret is not None:
        opened = unseal(added.totp_secret, key=sam.keys["operator"], message=AddSigner.TYPE, subject=user_id)
        secret = opened.totp_secret.get_secret_value() if opened.totp_secret else None
    return Party(sam, user_id, added.signer_id, secret)


@pytest.fixture
async def party(sam: SAMUnderTest) -> Party:
    return await enrol(sam)


@pytest.fixture
async def credential(sam: SAMUnderTest, party: Party) -> Credential:
    return await sam.add_credential(party.signer_id)


async def code_of(work: Awaitable[object]) -> Code:
    with pytest.raises(RakkanError) as refused:
        await work
    return refused.value.code


async def tries_left(sam: SAMUnderTest, party: Party) -> int:
    return (await sam.store.signer(party.signer_id)).pin_tries_left


async def test_an_authorized_hash_is_signed(sam: SAMUnderTest, party: Party, credential: Credential) -> None:
    sad = await party.sad(credential)
    signed = await party.sign(credential, sad)
    assert signed.certificate == b"certificate"
    (activation,) = sam.svg.activations
    assert (activation.digests, activation.key_id, activation.occurrences) == ((DIGEST,), credential.key_id, (0,))


async def test_the_same_request_again_returns_the_same_values(
    sam: SAMUnderTest, party: Party, credential: Credential
) -> None:
    sad = await party.sad(credential)
    first = await party.sign(credential, sad)
    assert await party.sign(credential, sad) == first
    assert len({activation.operation_id for activation in sam.svg.activations}) == 1


async def test_a_hundred_parallel_uses_of_one_sad_make_one_set_of_values(
    sam: SAMUnderTest, party: Party, credential: Credential
) -> None:
    sad = await party.sad(credential)
    signed = await asyncio.gather(*(party.sign(credential, sad) for _ in range(100)))
    assert len({one.values for one in signed}) == 1
    assert len(sam.svg.recorded) == 1


async def test_a_used_sad_signs_nothing_else(party: Party, credential: Credential) -> None:
    sad = await party.sad(credential)
    await party.sign(credential, sad)
    assert await code_of(party.sign(credential, sad, OTHER)) is Code.SAD_INVALID


async def test_parallel_different_hashes_spend_one_use_once(
    sam: SAMUnderTest, party: Party, credential: Credential
) -> None:
    sad = await party.sad(credential)
    digests = [bytes([number]) * 32 for number in range(20)]
    outcomes = await asyncio.gather(
        *(party.sign(credential, sad, digest) for digest in digests), return_exceptions=True
    )
    assert sum(isinstance(outcome, Signed) for outcome in outcomes) == 1
    assert len(sam.svg.recorded) == 1


async def test_only_authorized_hashes_are_signed(party: Party, credential: Credential) -> None:
    sad = await party.sad(credential, signatures=2, digests=(DIGEST, OTHER), hash=Hash.SHA256)
    assert await code_of(party.sign(credential, sad, THIRD)) is Code.HASH_NOT_AUTHORIZED
    assert await code_of(party.sign(credential, sad, DIGEST, DIGEST)) is Code.HASH_NOT_AUTHORIZED
    assert len((await party.sign(credential, sad, OTHER, DIGEST)).values) == 2
    assert await code_of(party.sign(credential, sad, DIGEST)) is not None


async def test_a_hash_authorized_under_one_algorithm_is_not_signed_under_another(
    party: Party, credential: Credential
) -> None:
    sad = await party.sad(credential, digests=(DIGEST,), hash=Hash.SHA3_256)
    assert await code_of(party.sign(credential, sad, DIGEST)) is Code.HASH_NOT_AUTHORIZED
    await party.sign(credential, sad, DIGEST, hash=Hash.SHA3_256)


async def test_an_svg_that_fails_leaves_the_use_to_the_same_request(
    sam: SAMUnderTest, party: Party, credential: Credential
) -> None:
    sad = await party.sad(credential)
    sam.svg.failure = RakkanError(Code.HSM_UNAVAILABLE)
    assert await code_of(party.sign(credential, sad)) is Code.HSM_UNAVAILABLE
    sam.svg.failure = None
    assert await code_of(party.sign(credential, sad, OTHER)) is Code.SAD_INVALID
    assert (await party.sign(credential, sad)).values


async def test_a_sad_ends(sam: SAMUnderTest, party: Party, credential: Credential) -> None:
    sad = await party.sad(credential)
    sam.clock.pass_s(301)
    assert await code_of(party.sign(credential, sad)) is Code.SAD_EXPIRED
    assert await code_of(party.extend(credential, sad)) is Code.SAD_EXPIRED


async def test_a_sad_of_another_credential_client_or_nobody_is_invalid(
    sam: SAMUnderTest, party: Party, credential: Credential
) -> None:
    other = await sam.add_credential(party.signer_id)
    sad = await party.sad(credential)
    foreign = sam.access_token(client="rival")
    assert await code_of(party.sign(other, sad)) is Code.SAD_INVALID
    assert await code_of(party.sign(credential, sad, access_token=foreign)) is Code.SAD_INVALID
    assert await code_of(party.sign(credential, "guess")) is Code.SAD_INVALID
    assert await code_of(party.sign(credential, None)) is Code.SAD_INVALID


async def test_another_tenants_credential_looks_unknown(
    sam: SAMUnderTest, party: Party, credential: Credential
) -> None:
    foreign = sam.access_token(tenant="rival")
    sad = await party.sad(credential)
    assert await code_of(party.sign(credential, sad, access_token=foreign)) is Code.CREDENTIAL_UNKNOWN
    assert await code_of(party.authorize(credential, access_token=foreign)) is Code.CREDENTIAL_UNKNOWN
    assert await code_of(party.authorize(credential, credential_id="none")) is Code.CREDENTIAL_UNKNOWN
    sealed = sam.sealed(DescribeCredential, credential.credential_id, access_token=foreign)
    describing = sam.reading.describe_credential(
        DescribeCredential(secrets=sealed, credential_id=credential.credential_id)
    )
    assert await code_of(describing) is Code.CREDENTIAL_UNKNOWN


async def test_a_credential_of_a_ca_that_the_virtual_service_does_not_show_looks_unknown(
    sam: SAMUnderTest, party: Party, credential: Credential
) -> None:
    red = await sam.add_credential(party.signer_id, authority="red")
    sad, redder = await party.sad(credential), await party.sad(red)
    blue = {"authorities": ("blue", "local")}
    assert await code_of(party.authorize(red, **blue)) is Code.CREDENTIAL_UNKNOWN
    assert await code_of(party.sign(red, redder, **blue)) is Code.CREDENTIAL_UNKNOWN
    assert await code_of(party.extend(red, redder, **blue)) is Code.CREDENTIAL_UNKNOWN
    checking = CheckFactor(
        secrets=sam.sealed(CheckFactor, red.credential_id), credential_id=red.credential_id, factor="PIN", **blue
    )
    assert await code_of(sam.signing.check_factor(checking)) is Code.CREDENTIAL_UNKNOWN
    describing = DescribeCredential(
        secrets=sam.sealed(DescribeCredential, red.credential_id), credential_id=red.credential_id, **blue
    )
    assert await code_of(sam.reading.describe_credential(describing)) is Code.CREDENTIAL_UNKNOWN
    listing = ListCredentials(secrets=sam.sealed(ListCredentials, ""), user_id=party.user_id, **blue)
    listed = await sam.reading.list_credentials(listing)
    assert [facts.credential_id for facts in listed.credentials] == [credential.credential_id]
    assert (await party.sign(credential, sad, **blue)).values


async def test_tokens_that_do_not_hold_are_refused(sam: SAMUnderTest, party: Party, credential: Credential) -> None:
    past = sam.clock.now() - timedelta(hours=2)
    expired = sam.access_token(issued_at=past, expires_at=past + timedelta(hours=1))
    assert await code_of(party.authorize(credential, access_token=expired)) is Code.TOKEN_EXPIRED
    other_scope = sam.access_token(scope="credential")
    assert await code_of(party.authorize(credential, access_token=other_scope)) is Code.SCOPE_REFUSED
    broken = sam.access_token()[:-4] + "AAAA"
    assert await code_of(party.authorize(credential, access_token=broken)) is Code.TOKEN_INVALID
    for refused in ({"token_id": "t1"}, {"client_id": "partner", "issued_before": sam.clock.now()}):
        token = sam.access_token(token_id="t1", issued_at=sam.clock.now() - timedelta(seconds=2))
        with operation.begin("authentication", timeout_s=5):
            await sam.ending.revoke_tokens(RevokeTokens(until=sam.clock.now() + timedelta(hours=1), **refused))
        assert await code_of(party.authorize(credential, access_token=token)) is Code.TOKEN_EXPIRED
    async with sam.store.transaction() as connection:
        await connection.execute("delete from refused_tokens")
        await connection.execute("delete from refused_clients")


async def test_secrets_sealed_for_another_message_do_not_open(sam: SAMUnderTest, credential: Credential) -> None:
    sealed = sam.sealed(Authorize, credential.credential_id)
    describing = sam.reading.describe_credential(
        DescribeCredential(secrets=sealed, credential_id=credential.credential_id)
    )
    assert await code_of(describing) is Code.MALFORMED


async def test_a_wrong_pin_costs_a_try_and_the_right_one_gives_them_back(
    sam: SAMUnderTest, party: Party, credential: Credential
) -> None:
    assert await code_of(party.authorize(credential, pin="000111")) is Code.PIN_INVALID
    assert await code_of(party.authorize(credential, pin=None)) is Code.PIN_INVALID
    assert await tries_left(sam, party) == 3
    await party.authorize(credential)
    assert await tries_left(sam, party) == 5


async def test_of_two_hundred_parallel_wrong_pins_exactly_the_allowed_tries_are_verified(
    sam: SAMUnderTest, party: Party, credential: Credential
) -> None:
    before = sam.token.macs
    codes = await asyncio.gather(*(code_of(party.authorize(credential, pin=f"{number:06}9")) for number in range(200)))
    assert sorted(codes) == [Code.PIN_INVALID] * 5 + [Code.PIN_LOCKED] * 195
    assert sam.token.macs - before == 5
    assert await code_of(party.authorize(credential)) is Code.PIN_LOCKED
    sealed = sam.sealed(UnlockSigner, party.user_id, pin="918273")
    with operation.begin("operator", timeout_s=20):
        await sam.ending.unlock_signer(UnlockSigner(tenant_id="acme", user_id=party.user_id, secrets=sealed))
    assert await code_of(party.authorize(credential)) is Code.PIN_INVALID
    await party.authorize(credential, pin="918273")


async def test_a_totp_code_counts_once(sam: SAMUnderTest) -> None:
    party = await enrol(sam, with_totp=True)
    credential = await sam.add_credential(party.signer_id, otp_required=True)
    otp = sam.totp(party.totp_secret or "")
    assert await code_of(party.authorize(credential)) is Code.OTP_INVALID
    await party.authorize(credential, otp=otp)
    assert await code_of(party.authorize(credential, otp=otp)) is Code.OTP_INVALID
    sam.clock.pass_s(60)
    await party.authorize(credential, otp=sam.totp(party.totp_secret or ""))


async def test_wrong_codes_lock_and_are_said_to_be_locked(sam: SAMUnderTest) -> None:
    party = await enrol(sam, with_totp=True)
    credential = await sam.add_credential(party.signer_id, otp_required=True)
    for _ in range(5):
        assert await code_of(party.authorize(credential, otp="12345x")) is Code.OTP_INVALID
    assert await code_of(party.authorize(credential, otp=sam.totp(party.totp_secret or ""))) is Code.OTP_LOCKED

    async def check(factor: str) -> None:
        sealed = sam.sealed(CheckFactor, credential.credential_id)
        await sam.signing.check_factor(
            CheckFactor(secrets=sealed, credential_id=credential.credential_id, factor=factor)
        )

    assert await code_of(check("OTP")) is Code.OTP_LOCKED
    assert await code_of(check("fingerprint")) is Code.FACTOR_UNKNOWN
    await check("PIN")


async def test_wishes_that_cannot_be_granted_cost_no_try(
    sam: SAMUnderTest, party: Party, credential: Credential
) -> None:
    linked = await sam.add_credential(party.signer_id, hashes_required=True)
    refusals = [
        (credential, {"signatures": 0}, Code.TOO_MANY_SIGNATURES),
        (credential, {"signatures": 11}, Code.TOO_MANY_SIGNATURES),
        (credential, {"signatures": 1, "digests": (DIGEST, OTHER)}, Code.TOO_MANY_SIGNATURES),
        (credential, {"digests": (b"short",)}, Code.DIGEST_LENGTH),
        (credential, {"digests": (DIGEST,), "hash": Hash.SHA512}, Code.DIGEST_LENGTH),
        (linked, {}, Code.HASHES_REQUIRED),
    ]
    for asked, changes, code in refusals:
        assert await code_of(party.authorize(asked, pin="wrong1", **changes)) is code
    assert await tries_left(sam, party) == 5


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"state": State.SUSPENDED}, Code.CREDENTIAL_DISABLED),
        ({"state": State.ENDED}, Code.CREDENTIAL_DISABLED),
        ({"state": State.ORDERED, "chain": (), "not_after": None}, Code.CREDENTIAL_DISABLED),
        ({"certificate_status": "revoked"}, Code.CREDENTIAL_DISABLED),
        ({"certificate_status": "suspended"}, Code.CREDENTIAL_DISABLED),
    ],
)
async def test_a_credential_that_is_not_usable_authorizes_nothing(
    sam: SAMUnderTest, party: Party, changes: dict[str, Any], code: Code
) -> None:
    unusable = await sam.add_credential(party.signer_id, **changes)
    assert await code_of(party.authorize(unusable)) is code


async def test_an_expired_certificate_signs_no_more(sam: SAMUnderTest, party: Party) -> None:
    ending = await sam.add_credential(party.signer_id, not_after=sam.clock.now() + timedelta(seconds=30))
    sad = await party.sad(ending)
    sam.clock.pass_s(31)
    assert await code_of(party.sign(ending, sad)) is Code.CERTIFICATE_EXPIRED


@pytest.mark.parametrize(
    ("changes", "digests", "code"),
    [
        ({"scheme": Scheme.RSA_PKCS1}, (DIGEST,), Code.SIGN_ALGORITHM_REFUSED),
        ({"hash": Hash.SHA512}, (DIGEST,), Code.DIGEST_LENGTH),
        ({"salt_bytes": 32}, (DIGEST,), Code.SIGN_PARAMETERS_REFUSED),
        ({}, tuple(bytes([n]) * 32 for n in range(11)), Code.TOO_MANY_SIGNATURES),
    ],
)
async def test_what_the_key_cannot_do_is_refused_before_anything_is_spent(
    party: Party, credential: Credential, changes: dict[str, Any], digests: tuple[bytes, ...], code: Code
) -> None:
    sad = await party.sad(credential)
    assert await code_of(party.sign(credential, sad, *digests, **changes)) is code
    assert (await party.sign(credential, sad)).values


async def test_extending_carries_over_what_is_left(party: Party, credential: Credential) -> None:
    first = await party.sad(credential, signatures=3)
    await party.sign(credential, first, DIGEST)
    second = await party.extend(credential, first)
    assert await code_of(party.sign(credential, first, OTHER)) is Code.SAD_INVALID
    assert await code_of(party.extend(credential, first)) is Code.SAD_INVALID
    await party.sign(credential, second, OTHER, THIRD)
    assert await code_of(party.extend(credential, second)) is Code.SAD_INVALID


async def test_a_credential_linked_to_its_hashes_takes_no_new_ones(
    sam: SAMUnderTest, party: Party, credential: Credential
) -> None:
    linked = await sam.add_credential(party.signer_id, hashes_required=True)
    sad = await party.sad(linked, signatures=2, digests=(DIGEST, OTHER))
    assert await code_of(party.extend(linked, sad, digests=(THIRD,))) is Code.HASH_NOT_AUTHORIZED
    await party.sign(linked, await party.extend(linked, sad, digests=(DIGEST,)), DIGEST)
    open_sad = await party.sad(credential, signatures=2, digests=(DIGEST,))
    extended = await party.extend(credential, open_sad, digests=(THIRD,))
    await party.sign(credential, extended, THIRD, DIGEST)


async def test_a_message_delivered_twice_makes_one_authorization(
    sam: SAMUnderTest, party: Party, credential: Credential
) -> None:
    request = Authorize(
        secrets=sam.sealed(Authorize, credential.credential_id, pin=PIN),
        credential_id=credential.credential_id,
        signatures=1,
    )
    once = operation.Operation("op", sam.clock.now() + timedelta(seconds=20), "gateway", f"replayed-{party.user_id}")
    with operation.carry(once):
        await sam.signing.authorize(request)
        assert await code_of(sam.signing.authorize(request)) is Code.OVERLOADED


async def test_waiting_authorizations_are_bounded(party: Party, credential: Credential) -> None:
    for _ in range(20):
        await party.authorize(credential)
    assert await code_of(party.authorize(credential)) is Code.OVERLOADED


@pytest.mark.parametrize(
    "edit",
    [
        "update sam.signers set pin_tries_left = 99 where signer_id = $1",
        "update sam.signers set pin_verifier = sha256('x') where signer_id = $1",
        "update sam.signers set tenant_id = 'rival' where signer_id = $1",
        "update sam.credentials set state = 'active', signatures_max = 1000 where signer_id = $1",
        "update sam.credentials set key_id = 'another' where signer_id = $1",
        "update sam.credentials set hashes_required = not hashes_required where signer_id = $1",
        "update sam.credentials set chain = array['\\x00'::bytea] where signer_id = $1",
        "update sam.authorizations set signatures = 9 where tenant_id = 'acme' and $1 <> ''",
        "update sam.authorizations set expires_at = expires_at + interval '1 day' where $1 <> ''",
        "update sam.authorized_hashes set digest = sha256('evil') where $1 <> ''",
        (
            "insert into sam.authorized_hashes select authorization_id, 7, sha256('evil') from sam.authorizations"
            " where $1 <> '' on conflict do nothing"
        ),
    ],
)
async def test_a_row_edited_by_sql_is_refused(database: Stack, party: Party, credential: Credential, edit: str) -> None:
    sad = await party.sad(credential, digests=(DIGEST,))
    administrator = await database.postgres.connect()
    try:
        await administrator.execute(edit, party.signer_id)
    finally:
        await administrator.close()
    assert await code_of(party.sign(credential, sad, DIGEST)) is Code.RECORD_DAMAGED


async def test_a_spent_authorization_cannot_be_unspent_by_the_room_itself(
    sam: SAMUnderTest, party: Party, credential: Credential
) -> None:
    await party.sign(credential, await party.sad(credential, digests=(DIGEST,)), DIGEST)
    for edit in (
        "update authorizations set used = 0",
        "update authorized_hashes set operation_id = null",
        "delete from authorized_hashes",
        "delete from activations",
        "update audit_leaves set record = ''",
        "delete from audit_leaves",
        "truncate audit_leaves",
        "update credentials set tenant_id = 'rival'",
    ):
        with pytest.raises((asyncpg.RaiseError, asyncpg.InsufficientPrivilegeError)):
            await sam.pool.execute(edit)


async def test_listing_shows_a_signers_own_credentials_page_by_page(
    sam: SAMUnderTest, party: Party, credential: Credential
) -> None:
    for _ in range(2):
        await sam.add_credential(party.signer_id)
    await sam.add_credential(party.signer_id, state=State.REFUSED)
    disabled = await sam.add_credential(party.signer_id, state=State.SUSPENDED)

    async def page(**changes: Any) -> tuple[list[str], str | None]:
        request = ListCredentials(secrets=sam.sealed(ListCredentials, ""), user_id=party.user_id, **changes)
        listed = await sam.reading.list_credentials(request)
        return [facts.credential_id for facts in listed.credentials], listed.next_page_token

    everything, end = await page()
    assert (len(everything), end) == (4, None)
    assert credential.credential_id in everything
    valid, _ = await page(only_valid=True)
    assert set(everything) - set(valid) == {disabled.credential_id}
    collected, after = [], None
    while True:
        some, after = await page(results_max=2, page_token=after)
        collected += some
        if after is None:
            break
    assert collected == everything


async def test_listing_needs_a_user_of_the_tenant(sam: SAMUnderTest, party: Party) -> None:
    async def listed(user_id: str | None, tenant: str = "acme") -> Code:
        sealed = sam.sealed(ListCredentials, "", access_token=sam.access_token(tenant=tenant))
        return await code_of(sam.reading.list_credentials(ListCredentials(secrets=sealed, user_id=user_id)))

    assert await listed(None) is Code.USER_ID_REQUIRED
    assert await listed("nobody") is Code.USER_ID_UNKNOWN
    assert await listed(party.user_id, tenant="rival") is Code.USER_ID_UNKNOWN


async def test_many_right_pins_at_once_are_no_guessing(sam: SAMUnderTest, party: Party, credential: Credential) -> None:
    authorized = await asyncio.gather(*(party.authorize(credential) for _ in range(12)))
    assert len(authorized) == 12
    assert await tries_left(sam, party) == 5
