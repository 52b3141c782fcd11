"""What authentication answers on the bus: tokens checked, tenants and clients added and suspended."""

import hashlib
import json
from datetime import timedelta
from typing import Any

import pytest
from joserfc.jwk import ECKey, KeySet

from services.authentication.clients import check_secret
from services.authentication.notices import Notices
from services.authentication.settings import TOKEN_LIFETIME_MAX_S
from shared.contracts.authentication import (
    AddClient,
    AddTenant,
    CheckToken,
    ListAccounts,
    SuspendClient,
    SuspendTenant,
)
from shared.errors import Code, RakkanError
from shared.messaging.topology import ROUTES
from shared.sealing import Secrets, seal, unseal
from shared.tokens import AccessToken, write_token
from tests.support.authentication import ISSUER, World, asked_by_operator


@pytest.fixture
async def world() -> World:
    world = World()
    with asked_by_operator():
        await world.handlers.add_tenant(AddTenant(tenant_id="acme", name="Acme"))
        for client_id in ("one", "two"):
            await world.handlers.add_client(AddClient(tenant_id="acme", client_id=client_id, name="P"))
    return world


async def token(world: World, client_id: str = "one") -> str:
    issued_at = world.clock.now().replace(microsecond=0)
    facts = AccessToken(
        token_id=f"t-{client_id}",
        issuer=ISSUER,
        client_id=client_id,
        tenant_id="acme",
        scope="service",
        issued_at=issued_at,
        expires_at=issued_at + timedelta(hours=1),
    )
    async with world.store.change() as change:
        await change.issue(facts)
    return write_token(facts, world.new_key)


def check(world: World, text: str, *, message: str = CheckToken.TYPE) -> CheckToken:
    to = world.trust.sealing_key("authentication")
    return CheckToken(token=seal(Secrets.of(access_token=text), to=to, message=message))


async def code_of(world: World, request: CheckToken) -> Code:
    with pytest.raises(RakkanError) as refusal:
        await world.handlers.check_token(request)
    return refusal.value.code


def test_every_route_has_its_handler(world: World) -> None:
    routes = {route.message for route in ROUTES.values() if route.listener == "authentication"}
    unused: Any = None  # nothing is asked of what it would work with
    notices = Notices(store=unused, mailer=None, settings=unused, now=unused)
    assert {*world.handlers.by_message(), *notices.by_message()} == routes


async def test_a_living_token_is_told_apart_from_dead_ones(world: World) -> None:
    text = await token(world)
    facts = await world.handlers.check_token(check(world, text))
    assert (facts.client_id, facts.tenant_id, facts.scope) == ("one", "acme", "service")
    head, body, signature = text.split(".")
    flipped = signature[:-2] + ("A" if signature[-2] != "A" else "B") + signature[-1]
    assert await code_of(world, check(world, f"{head}.{body}.{flipped}")) is Code.TOKEN_INVALID
    assert await code_of(world, check(world, "")) is Code.TOKEN_INVALID
    world.clock.pass_s(3601)
    assert await code_of(world, check(world, text)) is Code.TOKEN_EXPIRED


async def test_a_token_we_never_issued_is_dead_though_our_key_signed_it(world: World) -> None:
    text = await token(world)
    world.store.rows.tokens.clear()
    assert await code_of(world, check(world, text)) is Code.TOKEN_INVALID


async def test_a_token_sealed_for_another_message_is_not_opened(world: World) -> None:
    text = await token(world)
    assert await code_of(world, check(world, text, message="sam.sign_hash.v1")) is Code.MALFORMED


async def test_sealed_secrets_without_a_token_are_no_token(world: World) -> None:
    sealed = seal(Secrets.of(pin="1"), to=world.trust.sealing_key("authentication"), message=CheckToken.TYPE)
    assert await code_of(world, CheckToken(token=sealed)) is Code.TOKEN_INVALID


async def test_a_tenant_is_added_once_under_one_name(world: World) -> None:
    with asked_by_operator():
        await world.handlers.add_tenant(AddTenant(tenant_id="acme", name="Acme"))
        with pytest.raises(RakkanError) as refusal:
            await world.handlers.add_tenant(AddTenant(tenant_id="acme", name="Acme Ltd"))
    assert refusal.value.code is Code.CONFLICT


async def test_the_secret_of_a_client_leaves_once_and_sealed_to_the_operator(world: World) -> None:
    with asked_by_operator():
        added = await world.handlers.add_client(AddClient(tenant_id="acme", client_id="three", name="P"))
    assert added.secret is not None
    secret = unseal(added.secret, key=world.operator_key, message=AddClient.TYPE, subject="three").client_secret
    assert secret is not None
    client = await world.store.client("three")
    assert client is not None
    check_secret(client, secret.get_secret_value())
    assert secret.get_secret_value() not in str(world.store.rows)
    with pytest.raises(RakkanError):
        unseal(added.secret, key=world.operator_key, message=AddClient.TYPE, subject="four")
    event, facts = world.store.rows.leaves[-1]
    assert (event, facts["actor_type"], facts["actor_id"]) == ("client.added", "operator", "operator")


async def test_a_client_with_keys_of_its_own_gets_no_secret(world: World) -> None:
    jwks = json.dumps(KeySet([ECKey.generate_key("P-256")]).as_dict(private=False))
    added_with = AddClient(tenant_id="acme", client_id="keyed", name="K", method="private_key_jwt", jwks=jwks)
    with asked_by_operator():
        added = await world.handlers.add_client(added_with)
    assert added.secret is None


async def test_what_account_tokens_are_made_with_is_kept_for_those_who_use_them_only(world: World) -> None:
    for client_id, flags in (("plain", ()), ("accounts", ("account-tokens",))):
        with asked_by_operator():
            added = AddClient.model_validate({"tenant_id": "acme", "client_id": client_id, "name": "P", "flags": flags})
            answer = await world.handlers.add_client(added)
        assert answer.secret is not None
        secrets = unseal(answer.secret, key=world.operator_key, message=AddClient.TYPE, subject=client_id)
        assert secrets.client_secret is not None
        made_with = hashlib.sha256(secrets.client_secret.get_secret_value().encode()).digest()
        kept = world.store.rows.clients[client_id].account_token_key
        assert kept == (made_with if flags else None)


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (AddClient(tenant_id="acme", client_id="one", name="P"), Code.CONFLICT),
        (AddClient(tenant_id="none", client_id="new", name="P"), Code.NOT_FOUND),
        (AddClient(tenant_id="acme", client_id="new", name="P", method="private_key_jwt"), Code.MALFORMED),
        (AddClient(tenant_id="acme", client_id="new", name="P", jwks="{}"), Code.MALFORMED),
        (AddClient(tenant_id="acme", client_id="new", name="P", method="private_key_jwt", jwks="{}"), Code.MALFORMED),
    ],
)
async def test_a_client_that_cannot_be_is_refused(world: World, request_: AddClient, code: Code) -> None:
    with asked_by_operator(), pytest.raises(RakkanError) as refusal:
        await world.handlers.add_client(request_)
    assert refusal.value.code is code
    assert len(world.store.rows.clients) == 2


async def test_suspending_a_client_ends_its_tokens_here_and_at_the_sam(world: World) -> None:
    text, other = await token(world), await token(world, "two")
    with asked_by_operator():
        await world.handlers.suspend_client(SuspendClient(client_id="one", suspended=True))
    [revoked] = world.sam.revocations
    assert (revoked.client_id, revoked.token_id, revoked.issued_before) == ("one", None, world.clock.now())
    assert revoked.until > world.clock.now() + timedelta(seconds=TOKEN_LIFETIME_MAX_S)
    assert await code_of(world, check(world, text)) is Code.TOKEN_EXPIRED
    await world.handlers.check_token(check(world, other))
    with asked_by_operator():
        await world.handlers.suspend_client(SuspendClient(client_id="one", suspended=False))
    assert await code_of(world, check(world, text)) is Code.TOKEN_EXPIRED
    assert world.events[-2:] == ["client.suspended", "client.resumed"]


async def test_suspending_a_tenant_ends_the_tokens_of_all_its_clients(world: World) -> None:
    text = await token(world, "two")
    with asked_by_operator():
        await world.handlers.suspend_tenant(SuspendTenant(tenant_id="acme", suspended=True))
    assert {revoked.client_id for revoked in world.sam.revocations} == {"one", "two"}
    assert await code_of(world, check(world, text)) is Code.TOKEN_EXPIRED


async def test_without_the_sam_nobody_is_suspended_and_the_operator_is_told(world: World) -> None:
    world.sam.down = True
    for suspend in (SuspendClient(client_id="one", suspended=True), SuspendTenant(tenant_id="acme", suspended=True)):
        with asked_by_operator(), pytest.raises(RakkanError) as refusal:
            await world.handlers.by_message()[type(suspend)](suspend)
        assert refusal.value.code is Code.UNAVAILABLE
    accounts = await world.handlers.list_accounts(ListAccounts())
    assert not any(tenant.suspended for tenant in accounts.tenants)
    assert not any(client.suspended for client in accounts.clients)


async def test_whom_nobody_knows_cannot_be_suspended(world: World) -> None:
    for suspend in (SuspendClient(client_id="x", suspended=True), SuspendTenant(tenant_id="x", suspended=True)):
        with asked_by_operator(), pytest.raises(RakkanError) as refusal:
            await world.handlers.by_message()[type(suspend)](suspend)
        assert refusal.value.code is Code.NOT_FOUND
