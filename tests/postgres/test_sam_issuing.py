"""Credentials that come over the CSC, at many CAs: who may have them made, and that no CA can touch another's."""

import os
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from deploy.local.stack import Stack
from services.sam.handlers import ending
from services.sam.rows import State
from shared.algorithms import Hash, Scheme
from shared.contracts.ca_connector import NoteCertificate
from shared.contracts.issuance import (
    CheckIssuance,
    InstallCertificate,
    PrepareOnce,
    ReadRequest,
    RemoveCredential,
    RenewCredential,
)
from shared.contracts.sam import (
    AddSigner,
    Authorize,
    DescribeCredential,
    EndCredential,
    ExtendAuthorization,
    ListCredentials,
    RefuseOrder,
    SignHash,
)
from shared.database import Pool, connect_pool
from shared.errors import Code
from shared.messaging import operation
from shared.origin import check_origin_of, verify_origin
from shared.settings import Database
from shared.trust import Purpose
from tests.support.enrollments import code_of, new_enrollment
from tests.support.issuance import Partner
from tests.support.sam import PIN, SIGNING

DIGEST = b"d" * 32
ONCE = SIGNING | {"short_term": True, "signature_qualifier": "eu_eidas_qes"}


@pytest.fixture(scope="module")
async def pool(database: Stack) -> AsyncIterator[Pool]:
    settings = Database(port=database.postgres.port, password_file=database.keys.password_file("sam", "database"))
    pool = await connect_pool(settings, "sam")
    yield pool
    await pool.close()


@pytest.fixture
async def partner(pool: Pool) -> Partner:
    """Of a signer with a PIN, at a registry with two CAs of one name."""
    enrollment = await new_enrollment(pool)
    await enrollment.add_signer()
    partner = Partner(enrollment)
    partner.sam.registry.add(
        "local", enrollment.root.certificate, profiles={"signing": SIGNING, "once": ONCE}, default_profile="signing"
    )
    partner.sam.registry.add("red", partner.rival.certificate)
    return partner


# --- orders, and what is believed of what comes back ---


async def test_each_order_carries_the_sams_word_on_the_origin_of_its_key(partner: Partner) -> None:
    made = await partner.create()
    row = await partner.prepare(made.credential_id)
    order = await partner.order(row.order_id or "")
    assert (order.authority, order.profile, order.csr) == ("local", "signing", row.csr)
    keys = partner.sam.trust.verifying_keys("sam", Purpose.ACTIVATIONS)
    stated = verify_origin(order.origin or b"", keys)
    check_origin_of(stated, order.csr)
    assert (stated.order_id, stated.authority, stated.credential_id) == (order.order_id, "local", made.credential_id)
    assert stated.audit_reference == f"generate:{row.key_id}"


async def test_a_connector_cannot_deliver_for_another_ca_even_of_the_same_name(partner: Partner) -> None:
    made = await partner.create()
    row = await partner.prepare(made.credential_id)
    await partner.deliver(row.order_id or "", await partner.certificate(row, issuer=partner.rival))
    row = await partner.row(made.credential_id)
    assert (row.state, row.reason) == (State.REFUSED, "it does not lead to an anchor of its authority")


async def test_an_order_of_another_credential_is_no_way_in(partner: Partner) -> None:
    """The connector of one CA names the order of another: the certificate is for another key there."""
    ours, theirs = await partner.create(), await partner.create(authority="red")
    row = await partner.prepare(ours.credential_id)
    other = await partner.prepare(theirs.credential_id)
    await partner.deliver(other.order_id or "", await partner.certificate(row))
    assert (await partner.row(theirs.credential_id)).reason == "for another key"
    assert (await partner.issued(ours.credential_id)).state is State.ACTIVE


async def test_a_ca_that_left_the_registry_gets_nothing_linked(partner: Partner) -> None:
    row = await partner.prepare((await partner.create(authority="red")).credential_id)
    certificate = await partner.certificate(row, issuer=partner.rival)
    del partner.sam.registry.authorities["red"]
    await partner.deliver(row.order_id or "", certificate)
    assert (await partner.row(row.credential_id)).state is State.REFUSED


async def test_a_refused_credential_leaves_no_key_behind(partner: Partner) -> None:
    row = await partner.prepare((await partner.create()).credential_id)
    await partner.enrollment.handle(RefuseOrder(order_id=row.order_id or "", reason="not our customer"))
    assert partner.sam.svg.keys
    await partner.enrollment.handle(EndCredential(credential_id=row.credential_id))
    row = await partner.row(row.credential_id)
    assert (row.state, row.share, partner.sam.svg.keys) == (State.REFUSED, None, {})
    (leaf,) = await partner.leaves("key.destroyed", row.credential_id)
    assert leaf["subject"]["destruction_record"] == f"destroy:{row.key_id}"


async def test_a_certificate_that_comes_too_late_is_not_left_in_doubt(partner: Partner) -> None:
    row = await partner.prepare((await partner.create()).credential_id)
    certificate = await partner.certificate(row)
    await partner.ask(partner.sam.changing.remove_credential, RemoveCredential, credential_id=row.credential_id)
    await partner.deliver(row.order_id or "", certificate)
    assert f"confirm:{row.order_id}" in await partner.jobs()
    assert (await partner.row(row.credential_id)).state is State.ENDED


# --- who may have a credential made ---


async def test_a_signers_word_makes_one_credential_however_often_it_is_shown(partner: Partner) -> None:
    token = partner.granted()
    first, again = await partner.create(token=token), await partner.create(token=token)
    assert first.credential_id == again.credential_id
    assert (await partner.issued(first.credential_id)).state is State.ACTIVE
    assert (await partner.create(token=token)).state == "active"
    described = await partner.ask(
        partner.sam.reading.describe_credential, DescribeCredential, token=token, credential_id=first.credential_id
    )
    assert described.credential.description == "Signing (CA local)"
    (leaf,) = await partner.leaves("credential.requested", first.credential_id)
    assert (leaf["actor_type"], leaf["subject"]["authority"]) == ("signer", "local")


async def test_a_client_that_asks_again_meanwhile_asks_for_the_same(partner: Partner) -> None:
    first, again = await partner.create(), await partner.create()
    assert (first.credential_id, first.state) == (again.credential_id, "pending")
    await partner.issued(first.credential_id)
    assert (await partner.create()).credential_id != first.credential_id


@pytest.mark.parametrize(
    ("token", "members", "code"),
    [
        ({"authority": "red"}, {}, Code.SCOPE_REFUSED),
        ({"profile": "seal"}, {}, Code.SCOPE_REFUSED),
        ({"user_id": "nobody"}, {}, Code.USER_ID_UNKNOWN),
        ({"user_id": None}, {}, Code.FORBIDDEN),
        ({"scope": "service"}, {}, Code.SCOPE_REFUSED),
        ({"scope": "openid"}, {}, Code.SCOPE_REFUSED),
        ({"scope": "service", "user_id": None}, {}, Code.USER_ID_REQUIRED),
        ({"scope": "service", "user_id": None}, {"user_id": "nobody"}, Code.USER_ID_UNKNOWN),
        ({}, {"user_id": "someone"}, Code.FORBIDDEN),
    ],
    ids=str,
)
async def test_who_was_not_granted_it_gets_no_credential(
    partner: Partner, token: dict[str, Any], members: dict[str, Any], code: Code
) -> None:
    assert await code_of(partner.create(token=partner.granted(**token), **members)) is code


@pytest.mark.parametrize(
    ("members", "code"),
    [
        ({"authority": "nobody"}, Code.AUTHORITY_UNKNOWN),
        ({"profile": "nothing"}, Code.PROFILE_UNKNOWN),
        ({"profile": "once"}, Code.PROFILE_UNKNOWN),
        ({"one_time": True}, Code.PROFILE_UNKNOWN),
    ],
)
async def test_what_the_registry_has_not_is_not_ordered(partner: Partner, members: dict[str, Any], code: Code) -> None:
    assert await code_of(partner.create(**members)) is code


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"tenants": ["rival"]}, Code.AUTHORITY_FORBIDDEN),
        ({"status": "maintenance"}, Code.AUTHORITY_UNAVAILABLE),
        ({"profiles": {"signing": SIGNING | {"subject_type": "seal"}}}, Code.PROFILE_UNKNOWN),
    ],
)
async def test_a_ca_that_does_not_serve_the_signer_is_refused_by_the_sam_itself(
    partner: Partner, changes: dict[str, Any], code: Code
) -> None:
    partner.sam.registry.add("local", partner.enrollment.root.certificate, **changes)
    assert await code_of(partner.create()) is code


async def test_a_signer_with_nothing_to_approve_with_gets_no_credential(partner: Partner) -> None:
    user_id = f"user-{os.urandom(4).hex()}"
    sealed = partner.sam.sealed(AddSigner, user_id)
    with operation.begin("operator", timeout_s=20):
        await partner.sam.enrolling.add_signer(
            AddSigner(tenant_id=partner.enrollment.tenant, user_id=user_id, common_name="太郎", secrets=sealed)
        )
    assert await code_of(partner.create(user_id=user_id)) is Code.FACTOR_UNKNOWN


async def test_what_is_under_way_is_listed_as_disabled_without_a_certificate(partner: Partner) -> None:
    made = await partner.create()
    page = await partner.ask(partner.sam.reading.list_credentials, ListCredentials, user_id=partner.enrollment.user_id)
    (facts,) = page.credentials
    assert (facts.credential_id, facts.enabled, facts.certificates) == (made.credential_id, False, ())
    assert (facts.authority, facts.certificate_profile) == ("local", "signing")


async def test_only_whom_the_token_reaches_is_told_how_far_it_is(partner: Partner) -> None:
    token = partner.granted()
    made = await partner.create(token=token)
    check = partner.sam.creating.check_issuance
    for good in (token, partner.token(), partner.token(user_id=partner.enrollment.user_id)):
        checked = await partner.ask(check, CheckIssuance, token=good, credential_id=made.credential_id)
        assert checked.state == "pending"
    for wrong in (
        partner.granted(),
        partner.token(user_id="somebody"),
        partner.sam.access_token(tenant="rival"),
    ):
        asked = partner.ask(check, CheckIssuance, token=wrong, credential_id=made.credential_id)
        assert await code_of(asked) is Code.CREDENTIAL_UNKNOWN


# --- certificates by hand ---


async def test_a_certificate_by_hand_is_checked_like_any_other(partner: Partner) -> None:
    by_hand = SIGNING | {"issuance": "external"}
    partner.sam.registry.add("local", partner.enrollment.root.certificate, profiles={"signing": by_hand})
    made = await partner.create()
    changing = partner.sam.changing
    reading = partner.ask(changing.read_request, ReadRequest, credential_id=made.credential_id)
    assert await code_of(reading) is Code.ISSUANCE_PENDING
    row = await partner.prepare(made.credential_id)
    request = await partner.ask(changing.read_request, ReadRequest, credential_id=made.credential_id)
    assert request.csr == row.csr
    check_origin_of(
        verify_origin(request.origin, partner.sam.trust.verifying_keys("sam", Purpose.ACTIVATIONS)), request.csr
    )

    async def install(*, issuer: Any = None) -> None:
        certificate = await partner.certificate(row, issuer=issuer)
        chain = (certificate.public_bytes(Encoding.DER),)
        await partner.ask(
            changing.install_certificate, InstallCertificate, credential_id=made.credential_id, chain=chain
        )

    assert await code_of(install(issuer=partner.rival)) is Code.CERTIFICATE_REFUSED
    assert (await partner.row(made.credential_id)).state is State.ORDERED
    await install()
    linked = await partner.row(made.credential_id)
    assert linked.state is State.ACTIVE
    assert await code_of(install()) is Code.CREDENTIAL_DISABLED
    brought = await partner.sam.pool.fetch("select body from outbox where message_id = $1", f"brought:{row.order_id}")
    (note,) = (NoteCertificate.model_validate_json(one["body"]) for one in brought)
    assert (note.order_id, note.chain) == (linked.order_id, linked.chain)


async def test_a_certificate_by_hand_is_renewed_by_hand(partner: Partner) -> None:
    by_hand = SIGNING | {"issuance": "external"}
    partner.sam.registry.add("local", partner.enrollment.root.certificate, profiles={"signing": by_hand})
    changing = partner.sam.changing
    made = await partner.create()
    row = await partner.prepare(made.credential_id)

    async def install(*, issuer: Any = None) -> None:
        chain = ((await partner.certificate(row, issuer=issuer)).public_bytes(Encoding.DER),)
        await partner.ask(
            changing.install_certificate, InstallCertificate, credential_id=made.credential_id, chain=chain
        )

    await install()
    first = await partner.row(made.credential_id)
    await partner.ask(changing.renew_credential, RenewCredential, credential_id=made.credential_id, rekey=False)
    request = await partner.ask(changing.read_request, ReadRequest, credential_id=made.credential_id)
    assert request.csr == row.csr
    assert await code_of(install(issuer=partner.rival)) is Code.CERTIFICATE_REFUSED
    assert (await partner.row(made.credential_id)).chain == first.chain
    renewal_id = (await partner.row(made.credential_id)).renewal_id
    await install()
    renewed = await partner.row(made.credential_id)
    assert (renewed.state, renewed.order_id, renewed.renewal_id) == (State.ACTIVE, renewal_id, None)
    assert renewed.chain != first.chain
    assert await partner.sam.pool.fetchval("select count(*) from outbox where message_id = $1", f"brought:{renewal_id}")
    assert await code_of(install()) is Code.CREDENTIAL_DISABLED


async def test_no_certificate_is_installed_where_the_ca_issues_itself(partner: Partner) -> None:
    row = await partner.prepare((await partner.create()).credential_id)
    chain = ((await partner.certificate(row)).public_bytes(Encoding.DER),)
    asked = partner.ask(
        partner.sam.changing.install_certificate,
        InstallCertificate,
        credential_id=row.credential_id,
        chain=chain,
    )
    assert await code_of(asked) is Code.CREDENTIAL_DISABLED


# --- keys for one authorization ---


async def once(partner: Partner) -> str:
    made = await partner.create(profile="once", one_time=True)
    await partner.issued(made.credential_id)
    return made.credential_id


async def authorized(partner: Partner, credential_id: str) -> str:
    answer = await partner.ask(
        partner.sam.signing.authorize,
        Authorize,
        credential_id=credential_id,
        signatures=1,
        digests=(DIGEST,),
        hash=Hash.SHA256,
        secrets={"pin": PIN},
    )
    return partner.sam.open_sad(answer.sad, Authorize, credential_id)


async def sign(partner: Partner, credential_id: str, sad: str) -> Any:
    return await partner.ask(
        partner.sam.signing.sign_hash,
        SignHash,
        credential_id=credential_id,
        digests=(DIGEST,),
        scheme=Scheme.ECDSA,
        hash=Hash.SHA256,
        secrets={"sad": sad},
    )


async def test_a_key_for_once_signs_once_and_is_destroyed(partner: Partner, monkeypatch: pytest.MonkeyPatch) -> None:
    credential_id = await once(partner)
    sad = await authorized(partner, credential_id)
    signed = await sign(partner, credential_id, sad)
    assert await sign(partner, credential_id, sad) == signed  # a lost answer is asked for again
    await swept(partner)
    assert (await partner.row(credential_id)).state is State.ACTIVE
    monkeypatch.setattr(ending, "_KEPT_AFTER_SPENDING", timedelta())
    await swept(partner)
    row = await partner.row(credential_id)
    assert (row.state, row.ending) == (State.ENDED, "spent")
    assert await code_of(sign(partner, credential_id, sad)) is Code.CREDENTIAL_DISABLED
    await partner.enrollment.handle(EndCredential(credential_id=credential_id))
    row = await partner.row(credential_id)
    assert (row.state, row.share, partner.sam.svg.keys) == (State.DESTROYED, None, {})
    assert f"revoke:{row.order_id}" not in await partner.jobs()


async def swept(partner: Partner) -> None:
    with operation.begin("sam", timeout_s=20):
        await partner.sam.ending.end_spent()


async def test_a_key_for_once_has_one_authorization_and_no_list_shows_it(partner: Partner) -> None:
    credential_id = await once(partner)
    sad = await authorized(partner, credential_id)
    assert await code_of(authorized(partner, credential_id)) is Code.OVERLOADED
    extending = partner.ask(
        partner.sam.signing.extend, ExtendAuthorization, credential_id=credential_id, secrets={"sad": sad}
    )
    assert await code_of(extending) is Code.SAD_INVALID
    page = await partner.ask(partner.sam.reading.list_credentials, ListCredentials, user_id=partner.enrollment.user_id)
    assert page.credentials == ()


@pytest.mark.parametrize("reached", ["requested", "ordered", "active"])
async def test_a_key_for_once_that_comes_to_nothing_leaves_nothing_behind(
    partner: Partner, reached: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await partner.create(profile="once", one_time=True)
    if reached != "requested":
        await partner.prepare(made.credential_id)
    if reached == "active":
        await partner.issued(made.credential_id)
    monkeypatch.setattr(ending, "_UNUSED", timedelta())
    await swept(partner)
    await partner.enrollment.handle(EndCredential(credential_id=made.credential_id))
    row = await partner.row(made.credential_id)
    assert (row.state, row.share, partner.sam.svg.keys) == (State.DESTROYED, None, {})
    # What the CA has not issued yet, nobody will use any more.
    assert (f"revoke:{made.credential_id}" in await partner.jobs()) == (reached == "ordered")


async def test_a_key_for_once_that_its_ca_refuses_leaves_nothing_behind(partner: Partner) -> None:
    made = await partner.create(profile="once", one_time=True)
    await partner.prepare(made.credential_id)
    await partner.enrollment.handle(RefuseOrder(order_id=made.credential_id, reason="no"))
    await partner.enrollment.handle(EndCredential(credential_id=made.credential_id))
    assert partner.sam.svg.keys == {}


async def test_keys_for_once_that_wait_are_few(partner: Partner) -> None:
    for _ in range(5):
        await partner.create(profile="once", one_time=True)
    assert await code_of(partner.create(profile="once", one_time=True)) is Code.OVERLOADED


async def test_the_page_has_a_key_made_for_a_signer_with_a_passkey_alone(partner: Partner) -> None:
    request = PrepareOnce(
        tenant_id=partner.enrollment.tenant,
        user_id=partner.enrollment.user_id,
        request_id="r-1",
        authority="local",
        profile="once",
    )
    with operation.begin("authentication", timeout_s=20):
        assert await code_of(partner.sam.creating.prepare_once(request)) is Code.FACTOR_UNKNOWN
