"""What single CA programs do that others do not, each met in a real one: tokens that end, words that are dropped."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from services.ca_connector.authorities import Authority
from services.ca_connector.orders import Issued
from shared.errors import Code, RakkanError
from tests.support.ordering import check_issued, leaf, new_key, now, open_entry, order_for, read_entry, settle
from tests.support.peers import AuthorityPeer, Missing, leave_out
from tests.support.peers.cfssl import CFSSL
from tests.support.peers.environments import environment
from tests.support.peers.openbao import OpenBao
from tests.support.peers.running import changed

PAGE = Path(__file__).parents[2] / "docs" / "operating" / "connect-a-ca.md"
_SHELL = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)


class HastyBao(OpenBao):
    """Its tokens hold for two seconds."""

    login_seconds = 2


def started(peer: AuthorityPeer, factory: pytest.TempPathFactory) -> Iterator[Any]:
    try:
        peer.start(factory.mktemp(peer.name))
    except Missing as missing:
        leave_out(missing)
    try:
        yield peer
    finally:
        peer.stop()


@pytest.fixture(scope="module")
def bao(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HastyBao]:
    yield from started(HastyBao(), tmp_path_factory)


@pytest.fixture(scope="module")
def cfssl(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CFSSL]:
    yield from started(CFSSL(), tmp_path_factory)


@asynccontextmanager
async def opened(peer: AuthorityPeer, entry: dict[str, Any]) -> AsyncIterator[Authority]:
    authority = open_entry(entry, peer.secrets)
    try:
        yield authority
    finally:
        await authority.close()


async def enroll(authority: Authority) -> None:
    assert isinstance(await authority.submit(order_for(new_key())), Issued)


async def refusal(authority: Authority) -> Code:
    with pytest.raises(RakkanError) as refused:
        await authority.submit(order_for(new_key()))
    return refused.value.code


async def tokens(bao: OpenBao) -> set[str]:
    """All that are good now."""
    listed = await asyncio.to_thread(bao.api, "auth/token/accessors", None, method="LIST")
    return set(listed["data"]["keys"])


async def test_a_token_is_renewed_before_it_ends_and_nobody_logs_in_again(bao: HastyBao) -> None:
    async with opened(bao, bao.entry()) as authority:
        before = await tokens(bao)
        await enroll(authority)
        (ours,) = await tokens(bao) - before
        for _ in range(4):  # longer than one token would last
            await asyncio.sleep(1.1)
            await enroll(authority)
        assert await tokens(bao) - before == {ours}


async def test_a_token_that_has_ended_or_was_taken_away_is_replaced_by_a_log_in(bao: HastyBao) -> None:
    async with opened(bao, bao.entry()) as authority:
        before = await tokens(bao)
        await enroll(authority)
        await asyncio.sleep(2.5)
        await enroll(authority)
        (ours,) = await tokens(bao) - before
        await asyncio.to_thread(bao.api, "auth/token/revoke-accessor", {"accessor": ours})
        await enroll(authority)


async def test_a_token_of_its_own_is_kept_alive_and_read_anew_when_an_agent_changes_it(bao: HastyBao) -> None:
    wish = {"policies": ["rakkan"], "period": "2s"}
    made = [(await asyncio.to_thread(bao.api, "auth/token/create", wish))["auth"] for _ in range(2)]
    (bao.secrets / "token").write_text(made[0]["client_token"])
    async with opened(bao, changed(bao.entry(), approle=None, token="token")) as authority:
        for _ in range(3):
            await enroll(authority)
            await asyncio.sleep(1.2)
        await asyncio.to_thread(bao.api, "auth/token/revoke-accessor", {"accessor": made[0]["accessor"]})
        second = (await asyncio.to_thread(bao.api, "auth/token/create", wish))["auth"]["client_token"]
        (bao.secrets / "token").write_text(second)
        await enroll(authority)
        await asyncio.to_thread(bao.api, "auth/token/revoke", {"token": second})
        assert await refusal(authority) is Code.AUTHORITY_REFUSED
        (bao.secrets / "token").unlink()
        assert await refusal(authority) is Code.AUTHORITY_REFUSED


async def test_a_role_that_issues_for_longer_is_held_to_what_the_profile_allows(bao: HastyBao) -> None:
    entry = bao.entry()
    entry["profiles"]["signing"]["validity_days_max"] = 30
    async with opened(bao, entry) as authority:
        order, _, _ = await settle(authority, order_for(new_key()), bao.attend)
    lifetime = leaf(order).not_valid_after_utc - leaf(order).not_valid_before_utc
    assert timedelta(days=29) < lifetime <= timedelta(days=30)


async def test_a_sealed_vault_is_unavailable_and_nothing_was_ordered(bao: HastyBao) -> None:
    """The last one: it stays sealed."""
    async with opened(bao, bao.entry()) as authority:
        await enroll(authority)
        await asyncio.to_thread(bao.api, "sys/seal", {}, method="PUT")
        assert await refusal(authority) is Code.AUTHORITY_UNAVAILABLE


async def test_what_our_page_tells_an_administrator_to_type_sets_an_openbao_up(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    for other in started(OpenBao(), tmp_path_factory):
        for made in ("pki_int/roles/docsign", "sys/policies/acl/rakkan", "auth/approle/role/rakkan"):
            await asyncio.to_thread(other.api, made, method="DELETE")
        (typed,) = (block for block in _SHELL.findall(PAGE.read_text(encoding="utf-8")) if block.startswith("bao "))
        shell = await asyncio.create_subprocess_exec(
            "sh", "-euc", typed, env={"PATH": f"{environment('openbao')}:/usr/bin:/bin", "BAO_ADDR": other.url,
                                      "BAO_TOKEN": "root", "HOME": str(tmp_path_factory.mktemp("home"))},
            stdout=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        assert await shell.wait() == 0
        role = (await asyncio.to_thread(other.api, "auth/approle/role/rakkan/role-id", method="GET"))["data"]["role_id"]
        secret = await asyncio.to_thread(other.api, "auth/approle/role/rakkan/secret-id", {})
        (other.secrets / "bao-secret-id").write_text(secret["data"]["secret_id"])
        entry = changed(other.entry(), approle={"role_id": role, "secret_id": "bao-secret-id"})
        async with opened(other, entry) as authority:
            key = new_key()
            order, _, _ = await settle(authority, order_for(key), other.attend)
            check_issued(order, read_entry(entry), key)
            await authority.revoke(order, reason=1, at=now())


async def test_a_usage_that_cfssl_silently_drops_is_handed_on_for_the_sam_to_refuse(cfssl: CFSSL) -> None:
    async with opened(cfssl, cfssl.entry()) as authority:
        order, _, _ = await settle(authority, order_for(new_key(), profile="careless"), cfssl.attend)
    usage = leaf(order).extensions.get_extension_for_class(x509.KeyUsage).value
    assert usage.digital_signature
    assert not usage.content_commitment


async def test_a_profile_that_cfssl_does_not_know_becomes_its_default_one(cfssl: CFSSL) -> None:
    entry = cfssl.entry()
    entry["profiles"]["signing"]["ca_profile"] = "nobody has this"
    async with opened(cfssl, entry) as authority:
        await enroll(authority)


async def test_cfssl_of_2016_finds_no_certificate_by_its_issuers_key(cfssl: CFSSL) -> None:
    async with opened(cfssl, changed(cfssl.entry(), authority_key_id="hex")) as authority:
        order, _, _ = await settle(authority, order_for(new_key()), cfssl.attend)
        with pytest.raises(RakkanError) as refused:
            await authority.revoke(order, reason=1, at=now())
    assert refused.value.code is Code.AUTHORITY_REFUSED
    assert "certificate not found" in refused.value.detail
