"""From a name to a credential and to its end, over a real PostgreSQL: steps once, refusals said, nothing half done."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from deploy.local.stack import Stack
from services.sam import certificates, sweeping
from services.sam.handlers.reading import facts_of
from services.sam.rows import State
from shared.activation import Use
from shared.algorithms import KeyAlgorithm, Profile
from shared.contracts.sam import (
    AcceptCertificate,
    DeleteCredential,
    EndCredential,
    ListInventory,
    NoteCertificateStatus,
    PrepareCredential,
    RefuseOrder,
    SuspendCredential,
)
from shared.database import Pool, connect_pool
from shared.errors import Code, RakkanError
from shared.messaging import operation
from shared.settings import Database
from tests.support.certificates import authority, issue
from tests.support.enrollments import Enrollment, code_of, new_enrollment


@pytest.fixture(scope="module")
async def pool(database: Stack) -> AsyncIterator[Pool]:
    settings = Database(port=database.postgres.port, password_file=database.keys.password_file("sam", "database"))
    pool = await connect_pool(settings, "sam")
    yield pool
    await pool.close()


@pytest.fixture
async def enrollment(pool: Pool) -> Enrollment:
    return await new_enrollment(pool)


async def test_an_enrollment_ends_with_a_linked_certificate(enrollment: Enrollment) -> None:
    await enrollment.active()
    row = await enrollment.row()
    assert (row.state, row.certificate_status) == (State.ACTIVE, "valid")
    assert await enrollment.posted() == [
        f"prepare:{row.credential_id}",
        f"order:{row.credential_id}",
        f"confirm:{row.credential_id}",
    ]
    assert [activation.use for activation in enrollment.sam.svg.activations] == [Use.GENERATE, Use.CSR]


async def test_every_step_repeated_changes_nothing(enrollment: Enrollment) -> None:
    await enrollment.active()
    before, posted = await enrollment.row(), await enrollment.posted()
    await enrollment.add_credential()
    await enrollment.handle(PrepareCredential(credential_id=enrollment.credential_id))
    await enrollment.accept(await enrollment.certificate())
    await enrollment.handle(RefuseOrder(order_id=enrollment.credential_id, reason="late"))
    assert (await enrollment.row(), await enrollment.posted()) == (before, posted)


async def test_an_enrollment_goes_on_from_where_the_svg_failed(enrollment: Enrollment) -> None:
    await enrollment.add_signer()
    await enrollment.add_credential()
    enrollment.sam.svg.failure = RakkanError(Code.HSM_UNAVAILABLE)
    job = PrepareCredential(credential_id=enrollment.credential_id)
    assert await code_of(enrollment.handle(job)) is Code.HSM_UNAVAILABLE
    assert (await enrollment.row()).state is State.REQUESTED
    enrollment.sam.svg.failure = None
    await enrollment.handle(job)
    assert (await enrollment.row()).state is State.ORDERED


async def test_a_stuck_step_is_taken_up_again(
    enrollment: Enrollment, database: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    await enrollment.add_signer()
    await enrollment.add_credential()
    administrator = await database.postgres.connect()
    await administrator.execute("delete from sam.outbox")
    await administrator.execute(
        "update sam.credentials set touched_at = now() - interval '1 hour' where credential_id = $1",
        enrollment.credential_id,
    )
    await administrator.close()
    monkeypatch.setattr(sweeping, "_EVERY_S", 60)
    task = asyncio.create_task(sweeping.sweep(enrollment.sam.store, now=enrollment.sam.clock.now))
    async with asyncio.timeout(5):
        while not await enrollment.posted():  # noqa: ASYNC110  # the row has no event
            await asyncio.sleep(0.02)
    task.cancel()
    assert await enrollment.posted() == [f"prepare:{enrollment.credential_id}"]


async def test_a_certificate_that_does_not_fit_is_refused_and_said_so(enrollment: Enrollment) -> None:
    await enrollment.ordered()
    other = authority("local", now=enrollment.sam.clock.now())
    signer = await enrollment.sam.store.signer_of_user(enrollment.tenant, enrollment.user_id)
    subject = certificates.subject_of(signer, enrollment.profile)
    await enrollment.accept(issue(other, subject, enrollment.key, now=enrollment.sam.clock.now()))
    row = await enrollment.row()
    assert row.state is State.REFUSED
    assert row.reason == "it does not lead to an anchor of its authority"
    assert f"confirm:{row.credential_id}" in await enrollment.posted()


async def test_an_authority_that_will_not_issue_is_heard(enrollment: Enrollment) -> None:
    await enrollment.ordered()
    await enrollment.handle(RefuseOrder(order_id=enrollment.credential_id, reason="not our customer"))
    row = await enrollment.row()
    assert (row.state, row.reason) == (State.REFUSED, "not our customer")


async def test_an_order_nobody_placed_is_not_found(enrollment: Enrollment) -> None:
    job = AcceptCertificate(order_id="nobody", chain=(b"x",))
    assert await code_of(enrollment.handle(job)) is Code.NOT_FOUND


@pytest.mark.parametrize("pin", ["", "12345", "111111", "123456", "654321", "x" * 65])
async def test_a_pin_the_first_thief_tries_is_refused(enrollment: Enrollment, pin: str) -> None:
    assert await code_of(enrollment.add_signer(pin=pin)) is Code.PIN_INVALID


async def test_a_signer_is_enrolled_once(enrollment: Enrollment) -> None:
    await enrollment.add_signer()
    assert await code_of(enrollment.add_signer()) is Code.CONFLICT


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"user_id": "nobody"}, Code.NOT_FOUND),
        ({"tenant_id": "rival"}, Code.NOT_FOUND),
        ({"authority": "unheard-of"}, Code.AUTHORITY_UNKNOWN),
        ({"otp_required": True}, Code.FACTOR_UNKNOWN),
        ({"key_algorithm": KeyAlgorithm.RSA2048, "profile": Profile.EU}, Code.SIGN_ALGORITHM_REFUSED),
    ],
)
async def test_a_credential_that_cannot_be_is_refused(
    enrollment: Enrollment, changes: dict[str, Any], code: Code
) -> None:
    await enrollment.add_signer()
    assert await code_of(enrollment.add_credential(**changes)) is code
    assert await enrollment.sam.store.credential(enrollment.credential_id) is None


async def test_the_same_id_for_something_else_is_a_conflict(enrollment: Enrollment) -> None:
    await enrollment.ordered()
    assert await code_of(enrollment.add_credential(key_algorithm=KeyAlgorithm.P384)) is Code.CONFLICT


async def test_suspending_stops_at_once_and_resuming_starts_again(enrollment: Enrollment) -> None:
    await enrollment.active()
    for suspended, state in ((True, State.SUSPENDED), (True, State.SUSPENDED), (False, State.ACTIVE)):
        with operation.begin("operator", timeout_s=20):
            await enrollment.sam.ending.suspend_credential(
                SuspendCredential(credential_id=enrollment.credential_id, suspended=suspended)
            )
        assert (await enrollment.row()).state is state


async def test_a_revoked_certificate_stays_revoked(enrollment: Enrollment) -> None:
    await enrollment.active()
    now = enrollment.sam.clock.now()
    for status, kept in (
        ("valid", "valid"),
        ("suspended", "suspended"),
        ("valid", "suspended"),  # without evidence
        ("revoked", "revoked"),
        ("valid", "revoked"),
    ):
        await enrollment.handle(NoteCertificateStatus(order_id=enrollment.credential_id, status=status, at=now))
        assert (await enrollment.row()).certificate_status == kept


async def test_deleting_destroys_the_key_forgets_the_share_and_revokes(enrollment: Enrollment) -> None:
    await enrollment.active()
    for _ in range(2):
        with operation.begin("operator", timeout_s=20):
            await enrollment.sam.ending.delete_credential(DeleteCredential(credential_id=enrollment.credential_id))
    assert (await enrollment.row()).state is State.ENDED
    enrollment.sam.svg.failure = RakkanError(Code.HSM_UNAVAILABLE)
    job = EndCredential(credential_id=enrollment.credential_id)
    assert await code_of(enrollment.handle(job)) is Code.HSM_UNAVAILABLE
    enrollment.sam.svg.failure = None
    for _ in range(2):
        await enrollment.handle(job)
    row = await enrollment.row()
    assert (row.state, row.share) == (State.DESTROYED, None)
    assert (await enrollment.posted())[-2:] == [f"end:{row.credential_id}", f"revoke:{row.credential_id}"]
    assert enrollment.sam.svg.activations[-1].use is Use.DESTROY


async def test_what_is_destroyed_does_not_come_back_by_sql(enrollment: Enrollment) -> None:
    await enrollment.active()
    with operation.begin("operator", timeout_s=20):
        await enrollment.sam.ending.delete_credential(DeleteCredential(credential_id=enrollment.credential_id))
    with pytest.raises(asyncpg.RaiseError, match="does not come back"):
        await enrollment.sam.pool.execute(
            "update credentials set state = 'active' where credential_id = $1", enrollment.credential_id
        )


async def test_the_operator_sees_why_a_credential_cannot_sign(enrollment: Enrollment) -> None:
    await enrollment.ordered()
    await enrollment.handle(RefuseOrder(order_id=enrollment.credential_id, reason="not our customer"))
    inventory = await enrollment.sam.reading.list_inventory(ListInventory(tenant_id=enrollment.tenant))
    (signer,), (credential,) = inventory.signers, inventory.credentials
    assert (signer.user_id, signer.pin_tries_left) == (enrollment.user_id, 5)
    assert (credential.state, credential.reason) == ("refused", "not our customer")


async def test_an_expired_credential_is_shown_as_expired(enrollment: Enrollment) -> None:
    await enrollment.active()
    row = await enrollment.row()
    now = enrollment.sam.clock.now()
    assert (facts_of(row, now=now).enabled, facts_of(row, now=now).certificate_status) == (True, "valid")
    later = now + timedelta(days=400)
    assert (facts_of(row, now=later).enabled, facts_of(row, now=later).certificate_status) == (False, "expired")
