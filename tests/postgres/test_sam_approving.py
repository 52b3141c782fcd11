"""What a signer approves, over a real PostgreSQL: exactly that is authorized, once, and every forgery is refused."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import asyncpg
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from deploy.local.stack import Stack
from services.sam import evidence
from services.sam.contexts import read
from services.sam.rows import PASSKEY, Credential
from shared.algorithms import Hash, Scheme
from shared.audit import AuditWriter
from shared.contracts.approval import (
    AddAuthenticator,
    ApproveContext,
    AuthenticatorAdded,
    ContextApproved,
    ContextOpened,
    Document,
    EnrollmentOpened,
    IssueTicket,
    ListApprovable,
    OpenContext,
    OpenEnrollment,
    OpenLogin,
    ReadOverview,
    RefuseContext,
    RemoveAuthenticator,
    SignerFound,
    VerifyLogin,
)
from shared.contracts.authentication import NoticeAuthenticator
from shared.contracts.sam import (
    AddCredential,
    AddSigner,
    Authorize,
    CheckFactor,
    DescribeCredential,
    ExtendAuthorization,
    ListCredentials,
    RevokeTokens,
    Signed,
    SignHash,
)
from shared.database import Pool, connect_pool
from shared.errors import Code, RakkanError
from shared.messaging import operation
from shared.sealing import Secrets, seal, unseal
from shared.settings import Database
from tests.support.authenticator import HONEST, DeviceKey, Lies, Passkey
from tests.support.certificates import authority, issue, name
from tests.support.sam import ORIGIN, RP_ID, MemoryToken, SAMUnderTest

DIGEST, OTHER, THIRD = b"1" * 32, b"2" * 32, b"3" * 32
CONTRACT, ANNEX = Document(digest=DIGEST, label="契約書.pdf"), Document(digest=OTHER, label="annex.pdf")


@pytest.fixture(scope="module")
async def pool(database: Stack) -> AsyncIterator[Pool]:
    settings = Database(port=database.postgres.port, password_file=database.keys.password_file("sam", "database"))
    pool = await connect_pool(settings, "sam")
    yield pool
    await pool.close()


@pytest.fixture
async def sam(pool: Pool) -> SAMUnderTest:
    audit = AuditWriter("sam", os.urandom(4).hex())
    await audit.start(pool)
    return SAMUnderTest(pool, audit, os.urandom(32), MemoryToken())


def new_passkey(**changes: Any) -> Passkey:
    return Passkey(**({"rp_id": RP_ID, "origin": ORIGIN} | changes))


@dataclass
class Person:
    """A signer with a passkey in hand, at the pages of authentication."""

    sam: SAMUnderTest
    user_id: str
    signer_id: str
    passkey: Passkey = field(default_factory=new_passkey)
    authenticator_id: str = ""

    async def ticket(self) -> str:
        with operation.begin("operator", timeout_s=20):
            issued = await self.sam.authenticators.issue_ticket(IssueTicket(tenant_id="acme", user_id=self.user_id))
        opened = unseal(issued.ticket, key=self.sam.keys["operator"], message=IssueTicket.TYPE, subject=self.user_id)
        assert opened.ticket is not None
        return opened.ticket.get_secret_value()

    async def begin(self, ticket: str | None = None, **changes: Any) -> EnrollmentOpened:
        if ticket is not None:
            to = self.sam.keys["sam"].public_key()
            changes["secrets"] = seal(Secrets.of(ticket=ticket), to=to, message=OpenEnrollment.TYPE)
        elif not changes:
            changes = {"tenant_id": "acme", "user_id": self.user_id}
        return await self.sam.authenticators.open_enrollment(OpenEnrollment(**changes))

    async def add(
        self,
        opened: EnrollmentOpened,
        passkey: Passkey | None = None,
        *,
        approving: Passkey | None = None,
        lies: Lies = HONEST,
        **changes: Any,
    ) -> AuthenticatorAdded:
        fields: dict[str, Any] = {"enrollment_id": opened.enrollment_id, "label": "phone"}
        if passkey is not None:
            passkey.user_handle = opened.user_handle
            fields |= passkey.register(opened.challenge, lies)
        if approving is not None:
            fields["approving"] = approving.answer(opened.challenge)
        with operation.begin("authentication", timeout_s=20):
            return await self.sam.authenticators.add_authenticator(AddAuthenticator(**(fields | changes)))

    async def enroll(self) -> None:
        added = await self.add(await self.begin(await self.ticket()), self.passkey)
        self.authenticator_id = added.authenticator_id

    async def enroll_device(self, device: DeviceKey) -> None:
        opened = await self.begin()
        added = await self.add(
            opened,
            approving=self.passkey,
            device_key=device.public_key,
            device_proof=device.prove(opened.challenge),
        )
        device.key_id = added.authenticator_id
        self.sam.clock.pass_s(86_401)

    async def opened(self, credential: Credential, *documents: Document, **changes: Any) -> ContextOpened:
        fields: dict[str, Any] = {
            "tenant_id": "acme",
            "user_id": self.user_id,
            "client_id": "partner",
            "client_name": "Partner Ltd",
            "credential_id": credential.credential_id,
            "signatures": len(documents) or 1,
            "documents": documents or (CONTRACT,),
            "hash": Hash.SHA256,
        }
        with operation.begin("authentication", timeout_s=20):
            return await self.sam.approving.open_context(OpenContext(**(fields | changes)))

    async def approve(self, context: ContextOpened, lies: Lies = HONEST, **changes: Any) -> ContextApproved:
        if not changes:
            changes = {"passkey": self.passkey.answer(context.challenge, lies)}
        with operation.begin("authentication", timeout_s=20):
            return await self.sam.approving.approve_context(ApproveContext(context_id=context.context_id, **changes))

    async def approved(self, credential: Credential, *documents: Document) -> str:
        return (await self.approve(await self.opened(credential, *documents))).authorization_id

    def token(self, credential: Credential, authorization_id: str, /, **changes: Any) -> str:
        """As authentication makes it after an approval."""
        claims = {
            "scope": "credential",
            "user_id": self.user_id,
            "credential_id": credential.credential_id,
            "authorization_id": authorization_id,
        }
        return self.sam.access_token(**(claims | changes))

    async def refuse(self, context: ContextOpened) -> None:
        with operation.begin("authentication", timeout_s=20):
            await self.sam.approving.refuse_context(RefuseContext(context_id=context.context_id))

    async def remove(self, authenticator_id: str, *, user_id: str | None = None) -> None:
        request = RemoveAuthenticator(
            tenant_id="acme", user_id=user_id or self.user_id, authenticator_id=authenticator_id
        )
        with operation.begin("authentication", timeout_s=20):
            await self.sam.authenticators.remove_authenticator(request)

    async def log_in(self, lies: Lies = HONEST, *, login_id: str | None = None) -> SignerFound:
        opened = await self.sam.authenticators.open_login(OpenLogin())
        request = VerifyLogin(login_id=login_id or opened.login_id, passkey=self.passkey.answer(opened.challenge, lies))
        with operation.begin("authentication", timeout_s=20):
            return await self.sam.authenticators.verify_login(request)


async def sign(
    sam: SAMUnderTest, credential: Credential, token: str, *digests: bytes, sad: str | None = None, **changes: Any
) -> Signed:
    request = SignHash(
        secrets=sam.sealed(SignHash, credential.credential_id, sad=sad, access_token=token),
        credential_id=credential.credential_id,
        digests=digests or (DIGEST,),
        **({"scheme": Scheme.ECDSA, "hash": Hash.SHA256} | changes),
    )
    with operation.begin("gateway", timeout_s=20):
        return await sam.signing.sign_hash(request)


async def add_person(sam: SAMUnderTest, *, enroll: bool = True) -> Person:
    user_id = f"user-{os.urandom(4).hex()}"
    with operation.begin("operator", timeout_s=20):
        added = await sam.enrolling.add_signer(
            AddSigner(
                tenant_id="acme", user_id=user_id, common_name="山田 花子", secrets=sam.sealed(AddSigner, user_id)
            )
        )
    person = Person(sam, user_id, added.signer_id)
    if enroll:
        await person.enroll()
    return person


async def add_credential(sam: SAMUnderTest, person: Person, **changes: Any) -> Credential:
    root = authority("Rakkan Local CA", now=sam.clock.now())
    leaf = issue(root, name("Hanako"), ec.generate_private_key(ec.SECP256R1()), now=sam.clock.now())
    chain = (leaf.public_bytes(serialization.Encoding.DER),)
    fields = {"assurance": PASSKEY, "hashes_required": True, "chain": chain} | changes
    return await sam.add_credential(person.signer_id, **fields)


@pytest.fixture
async def person(sam: SAMUnderTest) -> Person:
    return await add_person(sam)


@pytest.fixture
async def credential(sam: SAMUnderTest, person: Person) -> Credential:
    return await add_credential(sam, person)


async def code_of(work: Awaitable[object]) -> Code:
    with pytest.raises(RakkanError) as refused:
        await work
    return refused.value.code


async def authorizations(sam: SAMUnderTest, credential: Credential) -> int:
    counting = "select count(*) from authorizations where credential_id = $1"
    return int(await sam.pool.fetchval(counting, credential.credential_id))


# --- what is approved is signed, and nothing else ---


async def test_what_the_signer_approved_is_signed_once(
    sam: SAMUnderTest, person: Person, credential: Credential
) -> None:
    context = await person.opened(credential, CONTRACT, ANNEX)
    assert context.authenticators == (person.passkey.credential_id,)
    assert (context.credential.subject, context.credential.issuer) == ("CN=Hanako", "CN=Rakkan Local CA")
    approved = await person.approve(context)
    assert 290 <= approved.expires_in_s <= 300
    token = person.token(credential, approved.authorization_id)
    signed = await sign(sam, credential, token, DIGEST, OTHER)
    assert len(signed.values) == 2
    assert await sign(sam, credential, token, DIGEST, OTHER) == signed
    (operation_id,) = {activation.operation_id for activation in sam.svg.activations}
    assert operation_id
    assert await code_of(sign(sam, credential, token, OTHER, DIGEST)) is Code.HASH_NOT_AUTHORIZED


@pytest.mark.parametrize(
    ("digests", "code"),
    [
        ((THIRD,), Code.HASH_NOT_AUTHORIZED),
        ((DIGEST, THIRD), Code.HASH_NOT_AUTHORIZED),
        ((DIGEST, OTHER, THIRD), Code.HASH_NOT_AUTHORIZED),
        ((DIGEST, DIGEST), Code.HASH_NOT_AUTHORIZED),
    ],
)
async def test_a_hash_swapped_or_added_after_the_approval_is_not_signed(
    sam: SAMUnderTest, person: Person, credential: Credential, digests: tuple[bytes, ...], code: Code
) -> None:
    token = person.token(credential, await person.approved(credential, CONTRACT, ANNEX))
    assert await code_of(sign(sam, credential, token, *digests)) is code
    assert await code_of(sign(sam, credential, token, DIGEST, hash=Hash.SHA3_256)) is Code.HASH_NOT_AUTHORIZED


@pytest.mark.parametrize(
    "documents",
    [
        (CONTRACT, Document(digest=THIRD, label="annex.pdf")),
        (CONTRACT, ANNEX, Document(digest=THIRD)),
        (CONTRACT,),
        (ANNEX, CONTRACT),
        (CONTRACT, Document(digest=OTHER, label="harmless.pdf")),
    ],
)
async def test_an_approval_of_other_documents_approves_nothing(
    sam: SAMUnderTest, person: Person, credential: Credential, documents: tuple[Document, ...]
) -> None:
    """A front end shows one list and asks the SAM for another: the assertion is over one of them only."""
    shown = await person.opened(credential, CONTRACT, ANNEX)
    asked = await person.opened(credential, *documents)
    said = person.passkey.answer(shown.challenge)
    assert await code_of(person.approve(asked, passkey=said)) is Code.EVIDENCE_REFUSED
    assert await authorizations(sam, credential) == 0


async def test_an_approval_for_another_credential_or_nonce_approves_nothing(
    sam: SAMUnderTest, person: Person, credential: Credential
) -> None:
    other = await add_credential(sam, person)
    for shown in (await person.opened(other), await person.opened(credential)):
        asked = await person.opened(credential)
        said = person.passkey.answer(shown.challenge)
        assert await code_of(person.approve(asked, passkey=said)) is Code.EVIDENCE_REFUSED
    assert await authorizations(sam, credential) == 0


@pytest.mark.parametrize(
    "lies",
    [
        Lies(uv=False),
        Lies(up=False),
        Lies(origin="https://sign.example.com.evil.test"),
        Lies(members={"crossOrigin": True}),
        Lies(members={"topOrigin": "https://evil.test"}),
        Lies(rp_id="evil.test"),
        Lies(type="webauthn.create"),
        Lies(be=True, bs=True),
        Lies(user_handle=b"somebody else"),
        Lies(key=ec.generate_private_key(ec.SECP256R1())),
        Lies(credential_id=b"unheard of"),
        Lies(counter=0),
    ],
)
async def test_an_assertion_that_lies_authorizes_nothing(
    sam: SAMUnderTest, person: Person, credential: Credential, lies: Lies
) -> None:
    await person.approved(credential)
    context = await person.opened(credential)
    assert await code_of(person.approve(context, lies)) is Code.EVIDENCE_REFUSED
    assert await authorizations(sam, credential) == 1
    assert (await person.approve(context)).authorization_id


async def test_an_assertion_replayed_for_a_second_context_approves_nothing(
    person: Person, credential: Credential
) -> None:
    first, second = await person.opened(credential), await person.opened(credential)
    said = person.passkey.answer(first.challenge)
    await person.approve(first, passkey=said)
    assert await code_of(person.approve(second, passkey=said)) is Code.EVIDENCE_REFUSED


async def test_another_signers_passkey_approves_nothing(
    sam: SAMUnderTest, person: Person, credential: Credential
) -> None:
    other = await add_person(sam)
    context = await person.opened(credential)
    said = other.passkey.answer(context.challenge)
    assert await code_of(person.approve(context, passkey=said)) is Code.EVIDENCE_REFUSED


async def test_a_counter_that_went_back_approves_nothing(person: Person, credential: Credential) -> None:
    person.passkey.counter = 10
    await person.approved(credential)
    person.passkey.counter = 9
    context = await person.opened(credential)
    assert await code_of(person.approve(context)) is Code.EVIDENCE_REFUSED


async def test_an_expired_context_approves_nothing(sam: SAMUnderTest, person: Person, credential: Credential) -> None:
    context = await person.opened(credential)
    sam.clock.pass_s(301)
    assert await code_of(person.approve(context)) is Code.CONTEXT_EXPIRED
    assert await code_of(person.refuse(context)) is Code.CONTEXT_EXPIRED


async def test_a_context_nobody_opened_or_from_before_a_restore_approves_nothing(
    sam: SAMUnderTest, person: Person, credential: Credential
) -> None:
    context = await person.opened(credential)
    unknown = context.model_copy(update={"context_id": "unheard-of"})
    assert await code_of(person.approve(unknown)) is Code.CONTEXT_UNKNOWN
    assert await code_of(person.refuse(unknown)) is Code.CONTEXT_UNKNOWN
    sam.approving = replace(sam.approving, epoch=2)
    assert await code_of(person.approve(context)) is Code.CONTEXT_UNKNOWN


async def test_authentication_cannot_forge_an_approval(
    sam: SAMUnderTest, person: Person, credential: Credential
) -> None:
    """It may say what it likes, with keys of its own: without the signer's authenticator there is no authorization."""
    context = await person.opened(credential)
    forged = new_passkey(user_handle=person.signer_id.encode())
    as_hers = Passkey(RP_ID, ORIGIN, credential_id=person.passkey.credential_id)
    for said in (forged.answer(context.challenge), as_hers.answer(context.challenge)):
        assert await code_of(person.approve(context, passkey=said)) is Code.EVIDENCE_REFUSED
    assert await code_of(person.approve(context, passkey=None, device=None)) is Code.MALFORMED
    made_up = person.token(credential, "0" * 32)
    assert await code_of(sign(sam, credential, made_up)) is Code.SAD_INVALID
    assert await authorizations(sam, credential) == 0


async def test_what_was_refused_stays_refused(person: Person, credential: Credential) -> None:
    context = await person.opened(credential)
    await person.refuse(context)
    await person.refuse(context)
    assert await code_of(person.approve(context)) is Code.CONTEXT_SPENT
    other = await person.opened(credential)
    await person.approve(other)
    assert await code_of(person.refuse(other)) is Code.CONTEXT_SPENT


async def test_a_hundred_parallel_approvals_of_one_context_make_one_authorization(
    sam: SAMUnderTest, person: Person, credential: Credential
) -> None:
    context = await person.opened(credential)
    same = person.passkey.answer(context.challenge)
    answers = await asyncio.gather(
        *(person.approve(context, passkey=same) for _ in range(50)),
        *(person.approve(context) for _ in range(50)),
        return_exceptions=True,
    )
    refusals = [answer for answer in answers if isinstance(answer, BaseException)]
    assert {one.code for one in refusals if isinstance(one, RakkanError)} <= {Code.CONTEXT_SPENT}
    assert all(isinstance(one, RakkanError) for one in refusals)
    assert len({one.authorization_id for one in answers if isinstance(one, ContextApproved)}) == 1
    assert await authorizations(sam, credential) == 1


async def test_the_same_evidence_again_gets_the_same_answer(
    sam: SAMUnderTest, person: Person, credential: Credential
) -> None:
    context = await person.opened(credential)
    said = person.passkey.answer(context.challenge)
    first = await person.approve(context, passkey=said)
    assert (await person.approve(context, passkey=said)).authorization_id == first.authorization_id
    assert await code_of(person.approve(context)) is Code.CONTEXT_SPENT
    sam.clock.pass_s(301)
    assert await code_of(person.approve(context, passkey=said)) is Code.CONTEXT_EXPIRED


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"user_id": "nobody"}, Code.CREDENTIAL_UNKNOWN),
        ({"tenant_id": "rival"}, Code.CREDENTIAL_UNKNOWN),
        ({"credential_id": "none"}, Code.CREDENTIAL_UNKNOWN),
        ({"signatures": 0}, Code.TOO_MANY_SIGNATURES),
        ({"signatures": 11}, Code.TOO_MANY_SIGNATURES),
        ({"documents": (CONTRACT, ANNEX), "signatures": 1}, Code.TOO_MANY_SIGNATURES),
        ({"hash": Hash.SHA512}, Code.DIGEST_LENGTH),
        ({"documents": (Document(digest=DIGEST, label="a\0b"),)}, Code.MALFORMED),
        ({"documents": (Document(digest=DIGEST, label="\u202egnp.pdf"),)}, Code.MALFORMED),
        ({"client_name": "Bank\n"}, Code.MALFORMED),
    ],
)
async def test_a_context_that_cannot_be_is_not_opened(
    person: Person, credential: Credential, changes: dict[str, Any], code: Code
) -> None:
    assert await code_of(person.opened(credential, **changes)) is code


async def test_only_her_own_usable_passkey_credentials_can_be_approved(sam: SAMUnderTest, person: Person) -> None:
    usable = await add_credential(sam, person)
    by_pin = await add_credential(sam, person, assurance="SCAL1-pin")
    expired = await add_credential(sam, person, not_after=sam.clock.now())
    revoked = await add_credential(sam, person, certificate_status="revoked")
    foreign = await add_credential(sam, await add_person(sam))
    refusals = {
        by_pin: Code.ASSURANCE_REFUSED,
        expired: Code.CERTIFICATE_EXPIRED,
        revoked: Code.CREDENTIAL_DISABLED,
        foreign: Code.CREDENTIAL_UNKNOWN,
    }
    for credential, code in refusals.items():
        assert await code_of(person.opened(credential)) is code
    listed = await sam.approving.list_approvable(ListApprovable(tenant_id="acme", user_id=person.user_id))
    assert [one.credential_id for one in listed.credentials] == [usable.credential_id]


async def test_a_credential_suspended_meanwhile_is_not_authorized(
    sam: SAMUnderTest, person: Person, credential: Credential
) -> None:
    context = await person.opened(credential)
    async with sam.store.transaction() as connection:
        await sam.store.change_credential(connection, replace(credential, certificate_status="revoked"))
    assert await code_of(person.approve(context)) is Code.CREDENTIAL_DISABLED


async def test_waiting_contexts_are_bounded(person: Person, credential: Credential) -> None:
    for _ in range(20):
        await person.opened(credential)
    assert await code_of(person.opened(credential)) is Code.OVERLOADED


# --- evidence ---


async def test_evidence_is_kept_and_verifies_again_from_its_row_alone(
    sam: SAMUnderTest, person: Person, credential: Credential
) -> None:
    context = await person.opened(credential, CONTRACT, ANNEX)
    await person.approve(context)
    kept = await sam.store.evidence(context.context_id)
    assert kept is not None
    approved = evidence.verify_evidence(kept, party=sam.party)
    assert approved == read(context.context)
    assert [(one.digest, one.label) for one in approved.documents] == [(DIGEST, "契約書.pdf"), (OTHER, "annex.pdf")]
    for edit in ("update evidence set signature = ''", "delete from evidence", "truncate evidence"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await sam.pool.execute(edit)


@pytest.mark.parametrize("kind", ["ed25519", "p256"])
async def test_a_signers_own_app_takes_the_place_of_the_page(
    sam: SAMUnderTest, person: Person, credential: Credential, kind: str
) -> None:
    device = DeviceKey() if kind == "ed25519" else DeviceKey(ec.generate_private_key(ec.SECP256R1()))
    await person.enroll_device(device)
    context = await person.opened(credential)
    with pytest.raises(ValueError, match="not the documents"):
        device.approve(context.context, expected=(THIRD,))
    said = device.approve(context.context, expected=(DIGEST,))
    other = await person.opened(credential)
    assert await code_of(person.approve(other, device=said)) is Code.EVIDENCE_REFUSED
    stranger = said.model_copy(update={"key_id": person.authenticator_id})
    assert await code_of(person.approve(context, device=stranger)) is Code.EVIDENCE_REFUSED
    both: dict[str, Any] = {"device": said, "passkey": person.passkey.answer(context.challenge)}
    assert await code_of(person.approve(context, **both)) is Code.MALFORMED
    approved = await person.approve(context, device=said)
    assert (await person.approve(context, device=said)).authorization_id == approved.authorization_id
    assert (await sign(sam, credential, person.token(credential, approved.authorization_id))).values
    kept = await sam.store.evidence(context.context_id)
    assert kept is not None
    assert evidence.verify_evidence(kept, party=sam.party).credential_id == credential.credential_id


async def test_a_device_key_without_its_proof_is_not_enrolled(person: Person) -> None:
    device, opened = DeviceKey(), await person.begin()
    for proof in (b"", bytes(64), device.prove(b"another challenge"), DeviceKey().prove(opened.challenge)):
        adding = person.add(opened, approving=person.passkey, device_key=device.public_key, device_proof=proof or None)
        assert await code_of(adding) is Code.EVIDENCE_REFUSED


# --- rows edited by SQL ---


@pytest.mark.parametrize(
    "edit",
    [
        "update sam.authenticators set public_key = sha256('evil') where signer_id = $1",
        "update sam.authenticators set sign_count = 0, backup_eligible = true where signer_id = $1",
        "update sam.authenticators set usable_from = usable_from - interval '1 day' where signer_id = $1",
        "update sam.authenticators set label = 'hers' where signer_id = $1",
        "update sam.contexts set context = context || '\\x00'::bytea where signer_id = $1",
        "update sam.contexts set client_id = 'rival' where signer_id = $1",
        "update sam.contexts set expires_at = expires_at + interval '1 day' where signer_id = $1",
        "update sam.credentials set assurance = 'SCAL1-pin' where signer_id = $1",
    ],
)
async def test_a_row_edited_by_sql_is_refused(
    database: Stack, person: Person, credential: Credential, edit: str
) -> None:
    context = await person.opened(credential)
    administrator = await database.postgres.connect()
    try:
        await administrator.execute(edit, person.signer_id)
    finally:
        await administrator.close()
    assert await code_of(person.approve(context)) is Code.RECORD_DAMAGED


async def test_an_authenticator_inserted_by_sql_approves_nothing(
    database: Stack, sam: SAMUnderTest, person: Person, credential: Credential
) -> None:
    """Also not with the MAC of another row, nor as an enrollment or a ticket that nobody gave."""
    context = await person.opened(credential)
    evil = new_passkey(user_handle=person.signer_id.encode())
    ticket_hash = os.urandom(32)
    administrator = await database.postgres.connect()
    try:
        await administrator.execute(
            "insert into sam.authenticators select 'evil', signer_id, kind, label, $2, $3, 0, false, added_at,"
            " usable_from, null, version, mac from sam.authenticators where signer_id = $1",
            person.signer_id,
            evil.credential_id,
            evil.cose_key(),
        )
        await administrator.execute(
            "insert into sam.challenges values ('evil', 'enrollment', $2, $1, $3, now() + interval '1 hour', '')",
            person.signer_id,
            b"c" * 32,
            ticket_hash,
        )
        await administrator.execute(
            "insert into sam.tickets values ($2, $1, now() + interval '1 hour', '')", person.signer_id, ticket_hash
        )
        said = evil.answer(context.challenge)
        assert await code_of(person.approve(context, passkey=said)) is Code.RECORD_DAMAGED
    finally:
        await administrator.execute("delete from sam.authenticators where authenticator_id = 'evil'")
        await administrator.close()
    request = AddAuthenticator(enrollment_id="evil", label="x", **evil.register(b"c" * 32))
    assert await code_of(sam.authenticators.add_authenticator(request)) is Code.RECORD_DAMAGED
    async with sam.store.transaction() as connection:
        assert await code_of(sam.store.ticket(connection, ticket_hash)) is Code.RECORD_DAMAGED


async def test_what_is_decided_used_or_removed_does_not_come_back_by_sql(
    sam: SAMUnderTest, person: Person, credential: Credential
) -> None:
    await person.approved(credential)
    await person.remove(person.authenticator_id)
    for edit in (
        "update contexts set outcome = 'open', decided_at = null where outcome = 'approved'",
        "update contexts set outcome = 'refused' where outcome = 'approved'",
        "delete from contexts where outcome = 'approved'",
        "update contexts set context = ''",
        "update authenticators set removed_at = null where removed_at is not null",
        "update authenticators set sign_count = sign_count - 1",
        "update authenticators set public_key = ''",
        "update tickets set spent = false where spent",
        "update tickets set signer_id = ''",
        "delete from tickets",
        "update credentials set assurance = 'SCAL1-pin'",
    ):
        with pytest.raises((asyncpg.RaiseError, asyncpg.InsufficientPrivilegeError)):
            await sam.pool.execute(edit)


# --- tokens that name an authorization ---


async def test_a_token_leads_only_to_its_own_authorization(
    sam: SAMUnderTest, person: Person, credential: Credential
) -> None:
    other = await add_credential(sam, person)
    stranger = await add_person(sam)
    authorization_id = await person.approved(credential)
    refusals: list[tuple[dict[str, Any], Code]] = [
        ({"client": "rival"}, Code.SAD_INVALID),
        ({"tenant": "rival"}, Code.CREDENTIAL_UNKNOWN),
        ({"credential_id": other.credential_id}, Code.CREDENTIAL_UNKNOWN),
        ({"user_id": stranger.user_id}, Code.CREDENTIAL_UNKNOWN),
        ({"authorization_id": "0" * 32}, Code.SAD_INVALID),
        ({"authorization_id": None}, Code.TOKEN_INVALID),
        ({"credential_id": None}, Code.TOKEN_INVALID),
        ({"scope": "nothing"}, Code.SCOPE_REFUSED),
    ]
    for changes, code in refusals:
        assert await code_of(sign(sam, credential, person.token(credential, authorization_id, **changes))) is code
    token = person.token(credential, authorization_id)
    assert await code_of(sign(sam, other, person.token(other, authorization_id))) is Code.SAD_INVALID
    assert await code_of(sign(sam, credential, token, sad="guess")) is Code.SAD_INVALID
    assert (await sign(sam, credential, token)).values


async def test_a_token_never_leads_to_an_authorization_that_has_a_sad(sam: SAMUnderTest, person: Person) -> None:
    """Authentication's key alone does not spend what was authorized by PIN."""
    by_pin = await add_credential(sam, person, assurance="SCAL1-pin", hashes_required=False)
    pinned = await sam.add_credential(person.signer_id)
    async with sam.store.transaction() as connection:
        signer = await sam.store.locked_signer(connection, person.signer_id)
        verifier = await sam.enrolling.pins.verifier(signer.signer_id, "739154", signer.pin_salt)
        await sam.store.change_signer(connection, replace(signer, pin_verifier=verifier))
    request = Authorize(
        secrets=sam.sealed(Authorize, pinned.credential_id, pin="739154"),
        credential_id=pinned.credential_id,
        signatures=1,
    )
    with operation.begin("gateway", timeout_s=20):
        await sam.signing.authorize(request)
    finding = "select authorization_id from authorizations where credential_id = $1"
    authorization_id = await sam.pool.fetchval(finding, pinned.credential_id)
    token = person.token(pinned, authorization_id)
    assert await code_of(sign(sam, pinned, token)) is Code.SAD_INVALID
    assert await code_of(sign(sam, by_pin, person.token(by_pin, authorization_id))) is Code.SAD_INVALID


async def test_a_token_in_the_place_of_the_sad_signs_beside_a_service_token(
    sam: SAMUnderTest, person: Person, credential: Credential
) -> None:
    authorization_id = await person.approved(credential)
    service = sam.access_token()
    past = sam.clock.now() - timedelta(hours=2)
    other = await add_credential(sam, person)
    refusals: list[tuple[str, str, Code]] = [
        (sam.access_token(client="rival"), person.token(credential, authorization_id), Code.SAD_INVALID),
        (service, person.token(credential, authorization_id, client="rival"), Code.SAD_INVALID),
        (service, person.token(credential, authorization_id, tenant="rival"), Code.SAD_INVALID),
        (service, person.token(credential, authorization_id, key_thumbprint="k"), Code.SAD_INVALID),
        (service, person.token(credential, authorization_id, certificate_thumbprint="c"), Code.SAD_INVALID),
        (service, person.token(other, authorization_id), Code.SAD_INVALID),
        (service, service, Code.SAD_INVALID),
        (service, person.token(credential, authorization_id)[:-4] + "AAAA", Code.SAD_INVALID),
        (service, "a.b.c", Code.SAD_INVALID),
        (sam.access_token(user_id=person.user_id), person.token(credential, authorization_id, user_id="x"),
         Code.SAD_INVALID),
        (service, person.token(credential, authorization_id, issued_at=past, expires_at=past), Code.SAD_EXPIRED),
    ]  # fmt: skip
    for token, sad, code in refusals:
        assert await code_of(sign(sam, credential, token, sad=sad)) is code
    sad = person.token(credential, authorization_id)
    assert (await sign(sam, credential, service, sad=sad)).values
    for binding in ({"key_thumbprint": "k"}, {"certificate_thumbprint": "c"}):
        again = person.token(credential, await person.approved(credential), **binding)
        assert (await sign(sam, credential, sam.access_token(**binding), sad=again)).values


async def test_a_revoked_token_signs_nothing_in_either_place(
    sam: SAMUnderTest, person: Person, credential: Credential
) -> None:
    token_id = os.urandom(8).hex()
    token = person.token(credential, await person.approved(credential), token_id=token_id)
    with operation.begin("authentication", timeout_s=5):
        await sam.ending.revoke_tokens(RevokeTokens(token_id=token_id, until=sam.clock.now() + timedelta(hours=1)))
    assert await code_of(sign(sam, credential, token)) is Code.TOKEN_EXPIRED
    assert await code_of(sign(sam, credential, sam.access_token(), sad=token)) is Code.SAD_EXPIRED


async def test_an_approval_ends(sam: SAMUnderTest, person: Person, credential: Credential) -> None:
    authorization_id = await person.approved(credential)
    sam.clock.pass_s(301)
    assert await code_of(sign(sam, credential, person.token(credential, authorization_id))) is Code.SAD_EXPIRED


async def test_a_passkey_credential_refuses_every_factor(
    sam: SAMUnderTest, person: Person, credential: Credential
) -> None:
    about = {"credential_id": credential.credential_id}
    authorizing = Authorize(
        secrets=sam.sealed(Authorize, credential.credential_id, pin="739154"), signatures=1, digests=(DIGEST,), **about
    )
    extending = ExtendAuthorization(secrets=sam.sealed(ExtendAuthorization, credential.credential_id, sad="x"), **about)
    checking = CheckFactor(secrets=sam.sealed(CheckFactor, credential.credential_id), factor="PIN", **about)
    with operation.begin("gateway", timeout_s=20):
        assert await code_of(sam.signing.authorize(authorizing)) is Code.ASSURANCE_REFUSED
        assert await code_of(sam.signing.extend(extending)) is Code.ASSURANCE_REFUSED
        assert await code_of(sam.signing.check_factor(checking)) is Code.FACTOR_UNKNOWN
    assert (await sam.store.signer(person.signer_id)).pin_tries_left == 5


async def test_a_signer_without_a_pin_authorizes_by_none(sam: SAMUnderTest, person: Person) -> None:
    by_pin = await sam.add_credential(person.signer_id)
    for pin in (None, "", "739154"):
        secrets = sam.sealed(Authorize, by_pin.credential_id, pin=pin)
        request = Authorize(secrets=secrets, credential_id=by_pin.credential_id, signatures=1)
        with operation.begin("gateway", timeout_s=20):
            assert await code_of(sam.signing.authorize(request)) is Code.PIN_INVALID
    wanted: list[tuple[dict[str, Any], Code]] = [
        ({}, Code.FACTOR_UNKNOWN),
        ({"assurance": "SCAL2-passkey", "otp_required": True}, Code.FACTOR_UNKNOWN),
    ]
    fields = {"tenant_id": "acme", "user_id": person.user_id, "description": "x"}
    for changes, code in wanted:
        credential_id = f"cred-{os.urandom(4).hex()}"
        with operation.begin("operator", timeout_s=20):
            adding = sam.enrolling.add_credential(AddCredential(credential_id=credential_id, **(fields | changes)))
            assert await code_of(adding) is code
    credential_id = f"cred-{os.urandom(4).hex()}"
    with operation.begin("operator", timeout_s=20):
        await sam.enrolling.add_credential(
            AddCredential(credential_id=credential_id, assurance="SCAL2-passkey", **fields)
        )
    row = await sam.store.credential(credential_id)
    assert row is not None
    assert (row.assurance, row.hashes_required) == ("SCAL2-passkey", True)


async def test_a_signers_token_shows_her_own_credentials_and_no_others(
    sam: SAMUnderTest, person: Person, credential: Credential
) -> None:
    stranger = await add_person(sam)
    foreign = await add_credential(sam, stranger)
    token = sam.access_token(user_id=person.user_id)

    async def listed(user_id: str | None) -> list[str]:
        sealed = sam.sealed(ListCredentials, "", access_token=token)
        page = await sam.reading.list_credentials(ListCredentials(secrets=sealed, user_id=user_id))
        return [facts.credential_id for facts in page.credentials]

    async def described(credential: Credential, token: str) -> str:
        sealed = sam.sealed(DescribeCredential, credential.credential_id, access_token=token)
        request = DescribeCredential(secrets=sealed, credential_id=credential.credential_id)
        facts = (await sam.reading.describe_credential(request)).credential
        assert (facts.assurance, facts.pin_required, facts.scal) == ("SCAL2-passkey", False, "2")
        return facts.credential_id

    assert await listed(None) == [credential.credential_id]
    assert await code_of(listed(person.user_id)) is Code.FORBIDDEN
    assert await code_of(listed(stranger.user_id)) is Code.FORBIDDEN
    assert await described(credential, token) == credential.credential_id
    assert await code_of(described(foreign, token)) is Code.CREDENTIAL_UNKNOWN
    authorizing = Authorize(
        secrets=sam.sealed(Authorize, foreign.credential_id, access_token=token, pin="739154"),
        credential_id=foreign.credential_id,
        signatures=1,
    )
    assert await code_of(sam.signing.authorize(authorizing)) is Code.CREDENTIAL_UNKNOWN
    one = person.token(credential, "0" * 32)
    assert await described(credential, one) == credential.credential_id
    other = await add_credential(sam, person)
    assert await code_of(described(other, one)) is Code.CREDENTIAL_UNKNOWN
    sealed = sam.sealed(ListCredentials, "", access_token=one)
    assert await code_of(sam.reading.list_credentials(ListCredentials(secrets=sealed))) is Code.SCOPE_REFUSED


# --- authenticators ---


async def test_a_ticket_enrolls_once(sam: SAMUnderTest) -> None:
    person = await add_person(sam, enroll=False)
    ticket = await person.ticket()
    first, second = await person.begin(ticket), await person.begin(ticket)
    assert (first.signer.user_id, first.approving, first.exclude) == (person.user_id, (), ())
    added = await person.add(first, person.passkey)
    assert added.usable_from <= sam.clock.now()
    assert await code_of(person.add(second, new_passkey())) is Code.TICKET_REFUSED
    assert await code_of(person.add(first, new_passkey())) is Code.CONTEXT_SPENT
    assert await code_of(person.begin(ticket)) is Code.TICKET_REFUSED


async def test_parallel_uses_of_one_ticket_enroll_one_authenticator(sam: SAMUnderTest) -> None:
    person = await add_person(sam, enroll=False)
    ticket = await person.ticket()
    opened = [await person.begin(ticket) for _ in range(5)]
    outcomes = await asyncio.gather(
        *(person.add(one, new_passkey()) for one in opened for _ in range(2)), return_exceptions=True
    )
    assert sum(isinstance(one, AuthenticatorAdded) for one in outcomes) == 1
    assert len(await sam.store.authenticators_of(person.signer_id)) == 1


async def test_a_ticket_that_is_expired_foreign_replaced_or_guessed_is_refused(sam: SAMUnderTest) -> None:
    person, stranger = await add_person(sam, enroll=False), await add_person(sam, enroll=False)
    replaced, ticket = await person.ticket(), await person.ticket()
    for wrong in (replaced, "guess", "", ticket[:-1]):
        assert await code_of(person.begin(wrong)) is Code.TICKET_REFUSED
    to = sam.keys["sam"].public_key()
    sealed = seal(Secrets.of(ticket=ticket), to=to, message=OpenEnrollment.TYPE)
    foreign: dict[str, Any] = {"secrets": sealed, "tenant_id": "acme", "user_id": stranger.user_id}
    assert await code_of(person.begin(**foreign)) is Code.TICKET_REFUSED
    elsewhere = seal(Secrets.of(ticket=ticket), to=to, message=IssueTicket.TYPE)
    assert await code_of(person.begin(secrets=elsewhere)) is Code.MALFORMED
    opened = await person.begin(ticket)
    sam.clock.pass_s(86_401)
    assert await code_of(person.begin(ticket)) is Code.TICKET_REFUSED
    assert await code_of(person.add(opened, person.passkey)) is Code.CONTEXT_EXPIRED
    assert await code_of(person.begin(tenant_id="acme")) is Code.TICKET_REFUSED
    assert await code_of(person.begin(tenant_id="acme", user_id="nobody")) is Code.NOT_FOUND
    assert await code_of(stranger.begin()) is Code.AUTHENTICATOR_REQUIRED


async def test_a_second_authenticator_waits_out_its_cooling_off_time(
    sam: SAMUnderTest, person: Person, credential: Credential
) -> None:
    second = new_passkey()
    opened = await person.begin()
    assert opened.approving == opened.exclude == (person.passkey.credential_id,)
    added = await person.add(opened, second, approving=person.passkey)
    assert added.usable_from > sam.clock.now() + timedelta(hours=23)
    first, person.passkey = person.passkey, second
    context = await person.opened(credential)
    assert context.authenticators == (first.credential_id,)
    assert await code_of(person.approve(context)) is Code.EVIDENCE_REFUSED
    assert await code_of(person.log_in()) is Code.EVIDENCE_REFUSED
    again = await person.begin()
    assert await code_of(person.add(again, new_passkey(), approving=second)) is Code.EVIDENCE_REFUSED
    sam.clock.pass_s(86_401)
    assert await person.approved(credential)


async def test_every_added_authenticator_is_promised_a_notice_and_no_other(sam: SAMUnderTest, person: Person) -> None:
    opened = await person.begin()
    assert await code_of(person.add(opened, new_passkey(), approving=new_passkey())) is Code.EVIDENCE_REFUSED
    added = await person.add(opened, new_passkey(), approving=person.passkey)
    reading = "select body from outbox where type = $1 and message_id = any($2)"
    names = [f"notice:{one.authenticator_id}" for one in await sam.store.authenticators_of(person.signer_id)]
    rows = await sam.pool.fetch(reading, NoticeAuthenticator.TYPE, names)
    told = [NoticeAuthenticator.model_validate_json(row["body"]) for row in rows]
    assert {one.authenticator_id for one in told} == {person.authenticator_id, added.authenticator_id}
    assert {(one.tenant_id, one.user_id) for one in told} == {("acme", person.user_id)}
    assert added.usable_from in [one.usable_from for one in told]


async def test_a_ticket_for_a_signer_who_had_an_authenticator_gives_one_that_waits(
    sam: SAMUnderTest, person: Person, credential: Credential
) -> None:
    await person.remove(person.authenticator_id)
    assert await code_of(person.opened(credential)) is Code.AUTHENTICATOR_REQUIRED
    recovered = await person.begin(await person.ticket())
    assert recovered.exclude == ()
    added = await person.add(recovered, new_passkey())
    assert added.usable_from > sam.clock.now() + timedelta(hours=23)
    assert await code_of(person.opened(credential)) is Code.AUTHENTICATOR_REQUIRED


async def test_an_addition_without_its_approval_is_refused(sam: SAMUnderTest, person: Person) -> None:
    stranger = await add_person(sam)
    opened = await person.begin()
    assert await code_of(person.add(opened, new_passkey())) is Code.EVIDENCE_REFUSED
    for wrong in (stranger.passkey, new_passkey()):
        assert await code_of(person.add(opened, new_passkey(), approving=wrong)) is Code.EVIDENCE_REFUSED
    other = await person.begin()
    registration = new_passkey().register(opened.challenge)
    request = AddAuthenticator(
        enrollment_id=opened.enrollment_id,
        label="phone",
        approving=person.passkey.answer(other.challenge),
        **registration,
    )
    assert await code_of(sam.authenticators.add_authenticator(request)) is Code.EVIDENCE_REFUSED
    for lies in (Lies(uv=False), Lies(origin="https://evil.test"), Lies(members={"crossOrigin": True})):
        adding = person.add(opened, new_passkey(), approving=person.passkey, lies=lies)
        assert await code_of(adding) is Code.EVIDENCE_REFUSED
    assert len(await sam.store.authenticators_of(person.signer_id)) == 1
    await person.add(opened, new_passkey(), approving=person.passkey)


async def test_what_is_enrolled_is_not_enrolled_again(sam: SAMUnderTest, person: Person) -> None:
    stranger = await add_person(sam, enroll=False)
    opened = await stranger.begin(await stranger.ticket())
    copied = replace(person.passkey)
    assert await code_of(stranger.add(opened, copied)) is Code.CONFLICT
    assert (await stranger.add(opened, stranger.passkey)).authenticator_id


async def test_a_removed_authenticator_does_nothing_more(
    sam: SAMUnderTest, person: Person, credential: Credential
) -> None:
    stranger = await add_person(sam)
    context = await person.opened(credential)
    assert await code_of(person.remove(stranger.authenticator_id)) is Code.NOT_FOUND
    assert await code_of(person.remove("unheard-of")) is Code.NOT_FOUND
    for _ in range(2):
        await person.remove(person.authenticator_id)
    assert await code_of(person.approve(context)) is Code.EVIDENCE_REFUSED
    assert await code_of(person.log_in()) is Code.EVIDENCE_REFUSED
    assert await code_of(person.begin()) is Code.AUTHENTICATOR_REQUIRED


async def test_a_log_in_says_whose_passkey_answered_and_counts_once(sam: SAMUnderTest, person: Person) -> None:
    found = await person.log_in()
    assert (found.tenant_id, found.user_id, found.display_name) == ("acme", person.user_id, "山田 花子")
    opened = await sam.authenticators.open_login(OpenLogin())
    said = person.passkey.answer(opened.challenge)
    request = VerifyLogin(login_id=opened.login_id, passkey=said)
    with operation.begin("authentication", timeout_s=20):
        await sam.authenticators.verify_login(request)
        assert await code_of(sam.authenticators.verify_login(request)) is Code.CONTEXT_SPENT
    late = await sam.authenticators.open_login(OpenLogin())
    sam.clock.pass_s(301)
    assert await code_of(person.log_in(login_id=late.login_id)) is Code.CONTEXT_EXPIRED
    assert await code_of(person.log_in(login_id="unheard-of")) is Code.CONTEXT_UNKNOWN
    enrollment = await person.begin()
    assert await code_of(person.log_in(login_id=enrollment.enrollment_id)) is Code.CONTEXT_UNKNOWN
    for lies in (Lies(uv=False), Lies(origin="https://evil.test"), Lies(key=ec.generate_private_key(ec.SECP256R1()))):
        assert await code_of(person.log_in(lies)) is Code.EVIDENCE_REFUSED


async def test_a_log_in_approves_nothing(sam: SAMUnderTest, person: Person, credential: Credential) -> None:
    """What a signer's passkey said to log in does not pass for an approval, nor the other way round."""
    context = await person.opened(credential)
    opened = await sam.authenticators.open_login(OpenLogin())
    said = person.passkey.answer(opened.challenge)
    assert await code_of(person.approve(context, passkey=said)) is Code.EVIDENCE_REFUSED
    request = VerifyLogin(login_id=opened.login_id, passkey=person.passkey.answer(context.challenge))
    assert await code_of(sam.authenticators.verify_login(request)) is Code.EVIDENCE_REFUSED


async def test_the_overview_shows_what_was_decided_and_signed(
    sam: SAMUnderTest, person: Person, credential: Credential
) -> None:
    stranger = await add_person(sam)
    refused, approved = await person.opened(credential, ANNEX), await person.opened(credential, CONTRACT, ANNEX)
    await person.opened(credential)
    await person.refuse(refused)
    authorization_id = (await person.approve(approved)).authorization_id
    await sign(sam, credential, person.token(credential, authorization_id), DIGEST)
    overview = await sam.authenticators.read_overview(ReadOverview(tenant_id="acme", user_id=person.user_id))
    (row,) = overview.authenticators
    assert (row.authenticator_id, row.kind, row.removed) == (person.authenticator_id, "passkey", False)
    assert [(one.outcome, one.signed, one.reference_code) for one in overview.history] == [
        ("approved", 1, approved.reference_code),
        ("refused", 0, refused.reference_code),
    ]
    assert overview.history[0].documents == (CONTRACT, ANNEX)
    assert overview.history[0].client_name == "Partner Ltd"
    others = await sam.authenticators.read_overview(ReadOverview(tenant_id="acme", user_id=stranger.user_id))
    assert others.history == ()
    asking = sam.authenticators.read_overview(ReadOverview(tenant_id="rival", user_id=person.user_id))
    assert await code_of(asking) is Code.NOT_FOUND


async def test_every_decision_leaves_a_leaf(sam: SAMUnderTest, person: Person, credential: Credential) -> None:
    context = await person.opened(credential)
    await code_of(person.approve(context, Lies(uv=False)))
    await person.approve(context)
    reading = "select convert_from(record, 'UTF8') from audit_leaves where chain_id = $1 order by seq"
    told = [row[0] for row in await sam.pool.fetch(reading, sam.approving.audit.chain_id)]
    events = [event for leaf in told for event in [leaf.split('"event_type":"')[1].split('"')[0]]]
    assert events == [
        "signer.enrolled",
        "ticket.issued",
        "authenticator.added",
        "context.opened",
        "context.approval_refused",
        "authorization.made",
    ]
    assert '"reason_code":"evidence_refused"' in told[-2]
    assert f'"context_id":"{context.context_id}"' in told[-1]


async def test_what_nobody_decided_is_forgotten_and_what_was_is_not(
    sam: SAMUnderTest, person: Person, credential: Credential
) -> None:
    undecided, approved = await person.opened(credential), await person.opened(credential)
    await person.approve(approved)
    login = await sam.authenticators.open_login(OpenLogin())
    later = sam.clock.now() + timedelta(hours=2)
    await sam.store.forget_contexts(before=later)
    await sam.store.forget_challenges(before=later)
    assert await sam.store.context(undecided.context_id) is None
    assert await sam.store.context(approved.context_id) is not None
    assert await code_of(person.log_in(login_id=login.login_id)) is Code.CONTEXT_UNKNOWN
