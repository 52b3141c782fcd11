"""What becomes of a credential: renewed, given a new key, suspended, revoked, run out, and its key destroyed."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from typing import Any, Literal

import pytest
from cryptography import x509
from cryptography.x509.ocsp import OCSPCertStatus

from deploy.local.stack import Stack
from services.sam.handlers.reading import facts_of
from services.sam.rows import Credential, State
from shared.algorithms import Hash
from shared.contracts.issuance import DELETION, RemoveCredential, RenewCredential, StopCredential
from shared.contracts.sam import (
    Authorize,
    DeleteCredential,
    DescribeCredential,
    EndCredential,
    ExtendAuthorization,
    ListCredentials,
    NoteCertificateStatus,
    RefuseOrder,
    SuspendCredential,
)
from shared.database import Pool, connect_pool
from shared.errors import Code
from shared.messaging import operation
from shared.settings import Database
from tests.support.enrollments import code_of, new_enrollment
from tests.support.issuance import Partner, crl
from tests.support.published import answer
from tests.support.sam import PIN, SIGNING

DIGEST = b"d" * 32


@pytest.fixture(scope="module")
async def pool(database: Stack) -> AsyncIterator[Pool]:
    settings = Database(port=database.postgres.port, password_file=database.keys.password_file("sam", "database"))
    pool = await connect_pool(settings, "sam")
    yield pool
    await pool.close()


@pytest.fixture
async def partner(pool: Pool) -> Partner:
    enrollment = await new_enrollment(pool)
    await enrollment.add_signer()
    return Partner(enrollment)


@pytest.fixture
async def active(partner: Partner) -> Credential:
    """An active credential of the partner's signer."""
    return await partner.issued((await partner.create()).credential_id)


async def renew(partner: Partner, credential_id: str, *, rekey: bool, token: str | None = None) -> None:
    renewing = partner.sam.changing.renew_credential
    await partner.ask(renewing, RenewCredential, token=token, credential_id=credential_id, rekey=rekey)


async def next_key(partner: Partner, credential_id: str) -> Credential:
    async with partner.sam.store.transaction() as connection:
        found = await partner.sam.store.superseding(connection, credential_id)
    assert found is not None
    return found


async def authorize(partner: Partner, credential_id: str) -> str:
    answer = await partner.ask(
        partner.sam.signing.authorize,
        Authorize,
        credential_id=credential_id,
        signatures=2,
        digests=(DIGEST,),
        hash=Hash.SHA256,
        secrets={"pin": PIN},
    )
    return partner.sam.open_sad(answer.sad, Authorize, credential_id)


# --- renewal and rekey ---


async def test_the_old_key_works_until_the_new_one_is_certified_and_is_destroyed_then(
    partner: Partner, active: Credential
) -> None:
    await renew(partner, active.credential_id, rekey=True)
    new = await next_key(partner, active.credential_id)
    new = await partner.prepare(new.credential_id)
    assert (await partner.order(new.order_id or "")).renews == active.order_id
    sad = await authorize(partner, active.credential_id)
    await partner.deliver(new.order_id or "", await partner.certificate(new))
    row = await partner.row(active.credential_id)
    assert (row.state, row.key_id, row.order_id) == (State.ACTIVE, new.key_id, new.order_id)
    assert row.chain != active.chain
    extending = partner.ask(
        partner.sam.signing.extend, ExtendAuthorization, credential_id=row.credential_id, secrets={"sad": sad}
    )
    assert await code_of(extending) is Code.SAD_INVALID  # its signer saw the old certificate
    await partner.enrollment.handle(EndCredential(credential_id=new.credential_id))
    old = await partner.row(new.credential_id)
    assert (old.state, old.key_id, old.share, old.ending) == (State.DESTROYED, active.key_id, None, "superseded")
    assert partner.sam.svg.keys.keys() == {new.key_id}
    # What was signed under the old certificate stays good.
    assert f"revoke:{active.order_id}" not in await partner.jobs()
    assert await authorize(partner, active.credential_id)


async def test_a_renewal_keeps_the_key_and_changes_the_certificate(partner: Partner, active: Credential) -> None:
    await renew(partner, active.credential_id, rekey=False)
    renewing = await partner.row(active.credential_id)
    assert renewing.renewal_id is not None
    assert facts_of(renewing, now=partner.sam.clock.now()).renewing
    order = await partner.order(renewing.renewal_id)
    assert (order.csr, order.renews) == (active.csr, active.order_id)
    assert await authorize(partner, active.credential_id)
    certificate = await partner.certificate(renewing, days=(0, 300))
    await partner.deliver(renewing.renewal_id, certificate)
    row = await partner.row(active.credential_id)
    assert (row.key_id, row.order_id, row.renewal_id) == (active.key_id, renewing.renewal_id, None)
    assert row.not_after is not None
    assert active.not_after is not None
    assert row.not_after < active.not_after
    assert partner.sam.svg.keys.keys() == {active.key_id}


@pytest.mark.parametrize("rekey", [True, False])
async def test_asking_again_while_it_is_under_way_orders_nothing_more(
    partner: Partner,
    active: Credential,
    rekey: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    await renew(partner, active.credential_id, rekey=rekey)
    before = await partner.jobs()
    await renew(partner, active.credential_id, rekey=True)
    await renew(partner, active.credential_id, rekey=False)
    assert await partner.jobs() == before


@pytest.mark.parametrize("answer", ["refused", "another's"])
async def test_a_rekey_that_fails_leaves_the_old_key_at_work_and_no_new_one_behind(
    partner: Partner, active: Credential, answer: str
) -> None:
    await renew(partner, active.credential_id, rekey=True)
    new = await partner.prepare((await next_key(partner, active.credential_id)).credential_id)
    if answer == "refused":
        await partner.enrollment.handle(RefuseOrder(order_id=new.order_id or "", reason="no"))
    else:
        await partner.deliver(new.order_id or "", await partner.certificate(new, issuer=partner.rival))
    await partner.enrollment.handle(EndCredential(credential_id=new.credential_id))
    assert partner.sam.svg.keys.keys() == {active.key_id}
    assert await partner.row(active.credential_id) == active
    assert await authorize(partner, active.credential_id)


@pytest.mark.parametrize("answer", ["refused", "another's"])
async def test_a_renewal_that_fails_says_so_and_changes_nothing(
    partner: Partner, active: Credential, answer: str
) -> None:
    await renew(partner, active.credential_id, rekey=False)
    order_id = (await partner.row(active.credential_id)).renewal_id or ""
    if answer == "refused":
        await partner.enrollment.handle(RefuseOrder(order_id=order_id, reason="no"))
    else:
        await partner.deliver(order_id, await partner.certificate(active, issuer=partner.rival))
    row = await partner.row(active.credential_id)
    assert (row.chain, row.renewal_id, row.order_id) == (active.chain, None, active.order_id)
    assert (row.reason or "").startswith("not renewed: ")
    assert await authorize(partner, active.credential_id)


async def test_ending_a_credential_ends_the_key_that_was_to_come(partner: Partner, active: Credential) -> None:
    await renew(partner, active.credential_id, rekey=True)
    new = await partner.prepare((await next_key(partner, active.credential_id)).credential_id)
    certificate = await partner.certificate(new)
    await partner.ask(
        partner.sam.changing.remove_credential, RemoveCredential, credential_id=active.credential_id, revoke_as=4
    )
    await partner.deliver(new.order_id or "", certificate)
    for credential_id in (active.credential_id, new.credential_id):
        await partner.enrollment.handle(EndCredential(credential_id=credential_id))
        assert (await partner.row(credential_id)).state is State.DESTROYED
    assert partner.sam.svg.keys == {}
    assert f"revoke:{new.order_id}" in await partner.jobs()


@pytest.mark.parametrize(
    ("days", "policy", "renewed"),
    [
        (300, {"renew_days_before": 30}, None),
        (340, {"renew_days_before": 30}, "rekey"),
        (340, {"renew_days_before": 30, "rekey_on_renewal": False}, "renewal"),
        (340, {}, None),
    ],
)
async def test_certificates_are_renewed_by_themselves_as_their_profile_says(
    partner: Partner, active: Credential, days: int, policy: dict[str, Any], renewed: str | None
) -> None:
    partner.sam.registry.add("local", partner.enrollment.root.certificate, profiles={"signing": SIGNING | policy})
    partner.sam.clock.pass_s(timedelta(days=days).total_seconds())
    for _ in range(2):
        with operation.begin("sam", timeout_s=60):
            await partner.sam.changing.renew_due()
    leaves = await partner.leaves("credential.renewing", active.credential_id)
    assert [leaf["subject"]["kind"] for leaf in leaves] == ([renewed] if renewed else [])


@pytest.mark.parametrize("rekey", [True, False])
async def test_what_was_refused_is_not_tried_again_all_day(
    partner: Partner,
    active: Credential,
    rekey: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    profile = SIGNING | {"renew_days_before": 365, "rekey_on_renewal": rekey}
    partner.sam.registry.add("local", partner.enrollment.root.certificate, profiles={"signing": profile})
    partner.sam.clock.pass_s(60)
    with operation.begin("sam", timeout_s=60):
        await partner.sam.changing.renew_due()
    order_id = (await partner.row(active.credential_id)).renewal_id
    if rekey:
        new = await partner.prepare((await next_key(partner, active.credential_id)).credential_id)
        order_id = new.order_id
    await partner.enrollment.handle(RefuseOrder(order_id=order_id or "", reason="no"))
    with operation.begin("sam", timeout_s=60):
        await partner.sam.changing.renew_due()
    assert len(await partner.leaves("credential.renewing", active.credential_id)) == 1


@pytest.mark.parametrize(
    ("state", "code"), [("suspended", Code.CREDENTIAL_DISABLED), ("expired", Code.CERTIFICATE_EXPIRED)]
)
async def test_what_is_stopped_or_over_is_not_renewed(
    partner: Partner, active: Credential, state: str, code: Code
) -> None:
    if state == "expired":
        partner.sam.clock.pass_s(timedelta(days=400).total_seconds())
    else:
        await stop(partner, active)
    for rekey in (True, False):
        assert await code_of(renew(partner, active.credential_id, rekey=rekey)) is code


# --- stopping, by whom ---


async def stop(partner: Partner, row: Credential, *, stopped: bool = True, token: str | None = None) -> None:
    await partner.ask(
        partner.sam.changing.stop_credential,
        StopCredential,
        token=token,
        credential_id=row.credential_id,
        stopped=stopped,
    )


async def test_a_client_stops_a_credential_and_starts_it_again(partner: Partner, active: Credential) -> None:
    for stopped in (True, True, False, False):
        await stop(partner, active, stopped=stopped)
        row = await partner.row(active.credential_id)
        assert row.state is (State.SUSPENDED if stopped else State.ACTIVE)
        assert facts_of(row, now=partner.sam.clock.now()).enabled is not stopped


async def test_what_the_operator_stopped_no_client_starts(partner: Partner, active: Credential) -> None:
    with operation.begin("operator", timeout_s=20):
        await partner.sam.ending.suspend_credential(
            SuspendCredential(credential_id=active.credential_id, suspended=True)
        )
    assert await code_of(stop(partner, active, stopped=False)) is Code.CREDENTIAL_DISABLED
    assert (await partner.row(active.credential_id)).state is State.SUSPENDED


async def test_another_signer_or_tenant_reaches_nothing(partner: Partner, active: Credential) -> None:
    for token in (partner.token(user_id="somebody"), partner.sam.access_token(tenant="rival")):
        assert await code_of(stop(partner, active, token=token)) is Code.CREDENTIAL_UNKNOWN
        assert await code_of(renew(partner, active.credential_id, rekey=True, token=token)) is Code.CREDENTIAL_UNKNOWN
        assert await code_of(remove(partner, active, token=token)) is Code.CREDENTIAL_UNKNOWN
    assert await partner.row(active.credential_id) == active


# --- ending ---


async def remove(partner: Partner, row: Credential, *, token: str | None = None, **members: Any) -> None:
    await partner.ask(
        partner.sam.changing.remove_credential,
        RemoveCredential,
        token=token,
        credential_id=row.credential_id,
        **members,
    )


@pytest.mark.parametrize("revoke_as", [None, 1, 5])
@pytest.mark.parametrize("who", ["client", "signer", "granted"])
async def test_a_deleted_credential_is_destroyed_and_revoked_if_wanted(
    partner: Partner, active: Credential, revoke_as: int | None, who: str
) -> None:
    user_id = partner.enrollment.user_id
    token = {
        "client": partner.token(),
        "signer": partner.token(user_id=user_id),
        "granted": partner.token(scope=DELETION, user_id=user_id, credential_id=active.credential_id),
    }[who]
    for _ in range(2):
        await remove(partner, active, token=token, revoke_as=revoke_as)
    assert (await partner.row(active.credential_id)).state is State.ENDED
    await partner.enrollment.handle(EndCredential(credential_id=active.credential_id))
    assert (await partner.row(active.credential_id)).state is State.DESTROYED
    assert partner.sam.svg.keys == {}
    assert (f"revoke:{active.order_id}" in await partner.jobs()) is (revoke_as is not None)
    (leaf,) = await partner.leaves("credential.ended", active.credential_id)
    assert leaf["actor_type"] == ("client" if who == "client" else "signer")
    (leaf,) = await partner.leaves("key.destroyed", active.credential_id)
    assert (leaf["subject"]["ending"], leaf["subject"]["destruction_record"]) == (
        "deleted",
        f"destroy:{active.key_id}",
    )


async def test_a_word_on_the_end_of_one_credential_ends_no_other(partner: Partner, active: Credential) -> None:
    token = partner.token(scope=DELETION, user_id=partner.enrollment.user_id, credential_id="another")
    assert await code_of(remove(partner, active, token=token)) is Code.CREDENTIAL_UNKNOWN


async def test_the_operator_ends_and_revokes_as_ever(partner: Partner, active: Credential) -> None:
    with operation.begin("operator", timeout_s=20):
        await partner.sam.ending.delete_credential(DeleteCredential(credential_id=active.credential_id))
    await partner.enrollment.handle(EndCredential(credential_id=active.credential_id))
    assert f"revoke:{active.order_id}" in await partner.jobs()


Status = Literal["valid", "revoked", "suspended"]


async def note(partner: Partner, row: Credential, status: Status, **said: Any) -> Credential:
    now = partner.sam.clock.now()
    job = NoteCertificateStatus(order_id=row.order_id or "", status=status, at=now, **said)
    await partner.enrollment.handle(job)
    return await partner.row(row.credential_id)


async def test_a_certificate_that_its_ca_revoked_takes_its_key_with_it(partner: Partner, active: Credential) -> None:
    row = await note(partner, active, "revoked")
    assert (row.state, row.certificate_status, row.ending) == (State.ENDED, "revoked", "revoked")
    assert await code_of(authorize(partner, active.credential_id)) is Code.CREDENTIAL_DISABLED
    await partner.enrollment.handle(EndCredential(credential_id=active.credential_id))
    assert partner.sam.svg.keys == {}
    assert f"revoke:{active.order_id}" not in await partner.jobs()
    described = await partner.ask(
        partner.sam.reading.describe_credential, DescribeCredential, credential_id=active.credential_id
    )
    assert (described.credential.enabled, described.credential.certificate_status) == (False, "revoked")


async def test_a_suspended_certificate_stops_its_key_at_once_and_comes_back_with_evidence_only(
    partner: Partner, active: Credential
) -> None:
    now = partner.sam.clock.now()
    row = await note(partner, active, "suspended", checked_at=now - timedelta(minutes=5))
    assert (row.state, row.certificate_status) == (State.ACTIVE, "suspended")
    assert await code_of(authorize(partner, active.credential_id)) is Code.CREDENTIAL_DISABLED
    root, rival = partner.enrollment.root, partner.rival
    certificate = await partner.certificate(active)  # of another serial number
    leaf = x509.load_der_x509_certificate(active.chain[0])
    wrong = {
        "none": None,
        "junk": b"junk",
        "another CA's": crl(rival, now=now),
        "older than the news": crl(root, now=now, age=timedelta(hours=1)),
        "run out": crl(root, now=now, age=timedelta(days=3)),
        "still on hold": crl(root, leaf, now=now, on_hold=True),
        "revoked": crl(root, leaf, now=now),
    }
    for name, evidence in wrong.items():
        row = await note(partner, active, "valid", evidence=evidence)
        assert row.certificate_status == "suspended", name
    refused = await partner.leaves("certificate.valid", active.credential_id)
    assert {leaf["outcome"] for leaf in refused} == {"refused"}
    row = await note(partner, active, "valid", evidence=crl(root, certificate, now=now))
    assert row.certificate_status == "valid"
    assert await authorize(partner, active.credential_id)


async def test_an_ocsp_answer_brings_a_suspended_certificate_back_too(partner: Partner, active: Credential) -> None:
    now = partner.sam.clock.now()
    root, leaf = partner.enrollment.root, x509.load_der_x509_certificate(active.chain[0])
    other = await partner.certificate(active)  # of another serial number
    await note(partner, active, "suspended", checked_at=now - timedelta(minutes=5))
    wrong = {
        "another CA's": answer(partner.rival, leaf, at=now),
        "about another": answer(root, other, at=now),
        "older than the news": answer(root, leaf, at=now - timedelta(hours=1)),
        "on hold": answer(root, leaf, at=now, reason=x509.ReasonFlags.certificate_hold),
        "revoked": answer(root, leaf, at=now, reason=x509.ReasonFlags.key_compromise),
        "unknown": answer(root, leaf, at=now, status=OCSPCertStatus.UNKNOWN),
    }
    for name, evidence in wrong.items():
        row = await note(partner, active, "valid", evidence=evidence)
        assert row.certificate_status == "suspended", name
    row = await note(partner, active, "valid", evidence=answer(root, leaf, at=now))
    assert row.certificate_status == "valid"
    assert await authorize(partner, active.credential_id)


@pytest.mark.parametrize("edit", ["status_checked_at - interval '1 day'", "null", "certificate"])
async def test_whoever_edits_the_database_makes_no_old_list_good_news(
    database: Stack, partner: Partner, active: Credential, edit: str
) -> None:
    now = partner.sam.clock.now()
    await note(partner, active, "suspended", checked_at=now - timedelta(minutes=5))
    column = "certificate_status = 'valid'" if edit == "certificate" else f"status_checked_at = {edit}"
    administrator = await database.postgres.connect()
    await administrator.execute(
        f"update sam.credentials set {column} where credential_id = $1",
        active.credential_id,
    )
    await administrator.close()
    old = crl(partner.enrollment.root, now=now, age=timedelta(hours=1))
    assert await code_of(note(partner, active, "valid", evidence=old)) is Code.RECORD_DAMAGED
    assert await code_of(authorize(partner, active.credential_id)) is Code.RECORD_DAMAGED


async def test_a_suspension_of_before_its_time_was_sealed_is_taken_back_by_nothing(
    partner: Partner, active: Credential
) -> None:
    async with partner.sam.store.transaction() as connection:
        row = await partner.sam.store.locked_credential(connection, active.credential_id)
        await partner.sam.store.change_credential(connection, replace(row, certificate_status="suspended"))
    fresh = crl(partner.enrollment.root, now=partner.sam.clock.now())
    assert (await note(partner, active, "valid", evidence=fresh)).certificate_status == "suspended"


async def test_when_a_ca_was_last_asked_is_remembered_and_is_no_leaf(partner: Partner, active: Credential) -> None:
    at = partner.sam.clock.now() - timedelta(seconds=30)
    row = await note(partner, active, "valid", checked_at=at)
    assert row.status_checked_at == at
    assert row.version == active.version  # who reads the row to change it is not in the way of this
    assert row.mac != active.mac
    assert (await note(partner, active, "valid", checked_at=at - timedelta(hours=1))).status_checked_at == at
    future = partner.sam.clock.now() + timedelta(days=1)
    seen = (await note(partner, active, "valid", checked_at=future)).status_checked_at
    assert seen is not None
    assert seen < future
    assert await partner.leaves("certificate.valid", active.credential_id) == []


async def test_what_a_ca_says_of_an_old_certificate_touches_no_new_one(partner: Partner, active: Credential) -> None:
    await renew(partner, active.credential_id, rekey=True)
    new = await partner.prepare((await next_key(partner, active.credential_id)).credential_id)
    await partner.deliver(new.order_id or "", await partner.certificate(new))
    await partner.enrollment.handle(
        NoteCertificateStatus(order_id=active.order_id or "", status="revoked", at=partner.sam.clock.now())
    )
    assert (await partner.row(active.credential_id)).certificate_status == "valid"


async def test_a_row_that_somebody_edited_keeps_no_other_waiting(
    database: Stack, partner: Partner, active: Credential
) -> None:
    other = await partner.issued((await partner.create()).credential_id)
    administrator = await database.postgres.connect()
    edited = "update sam.credentials set description = 'edited' where credential_id = $1"
    await administrator.execute(edited, min(active.credential_id, other.credential_id))
    await administrator.close()
    partner.sam.clock.pass_s(timedelta(days=400).total_seconds())
    with operation.begin("sam", timeout_s=20):
        await partner.sam.ending.end_expired()
    assert (await partner.row(max(active.credential_id, other.credential_id))).state is State.ENDED


async def test_a_certificate_that_ran_out_takes_its_key_with_it_and_is_shown_as_expired(
    partner: Partner, active: Credential
) -> None:
    partner.sam.clock.pass_s(timedelta(days=400).total_seconds())
    assert await code_of(authorize(partner, active.credential_id)) is Code.CERTIFICATE_EXPIRED
    with operation.begin("sam", timeout_s=20):
        await partner.sam.ending.end_expired()
    row = await partner.row(active.credential_id)
    assert (row.state, row.ending) == (State.ENDED, "expired")
    await partner.enrollment.handle(EndCredential(credential_id=active.credential_id))
    assert (await partner.row(active.credential_id)).state is State.DESTROYED
    assert partner.sam.svg.keys == {}
    page = await partner.ask(partner.sam.reading.list_credentials, ListCredentials, user_id=partner.enrollment.user_id)
    assert [facts.certificate_status for facts in page.credentials] == ["expired"]
    assert await code_of(authorize(partner, active.credential_id)) is Code.CERTIFICATE_EXPIRED
