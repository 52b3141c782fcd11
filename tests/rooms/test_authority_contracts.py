"""Commercial CAs that cannot be run here, by the entries our pages show, against their published descriptions.

Each simulated service is ours: these tests say that an order goes the way the descriptions describe, and no more.
"""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from services.ca_connector.authorities import Authority
from services.ca_connector.orders import Issued, Pending, Refused, State
from shared.errors import Code, RakkanError
from tests.support.acting_http import Asked, Raw, Server, reply_json, serving
from tests.support.ordering import (
    after,
    check_issued,
    leaf,
    new_key,
    now,
    open_entry,
    order_for,
    read_entry,
    request_for,
    settle,
)
from tests.support.peers import example
from tests.support.peers.running import write_secrets
from tests.support.simulated_authorities import HVCA, REFUSED_NAME, SCM, CertCentral, Simulated, SimulatedEJBCA, pem
from tests.support.tls_files import make_tls_files


@dataclass(frozen=True)
class Contract:
    example: str
    simulated: type[Any]
    path: str
    key_compromise: str
    secrets: dict[str, str]
    wrong: str
    """The secret without which it knows us no more."""
    with_client_certificate: str | None = None


CONTRACTS = (
    Contract(
        "globalsign-hvca",
        HVCA,
        "/v2",
        "keyCompromise",
        {"hvca-api-key": "the key", "hvca-api-secret": "the secret"},
        "hvca-api-secret",
        "hvca-client.pem",
    ),
    Contract("digicert", CertCentral, "/services/v2", "key_compromise", {"digicert-api-key": "the key"},
             "digicert-api-key"),
    Contract("sectigo-scm", SCM, "/api/ssl/v1", "1",
             {"scm-login": "ra", "scm-password": "secret", "scm-customer": "example"}, "scm-password"),
    Contract("ejbca", SimulatedEJBCA, "/ejbca/ejbca-rest-api", "KEY_COMPROMISE", {"ejbca-enrollment-code": "the code"},
             "ejbca-ra.pem", "ejbca-ra.pem"),
)  # fmt: skip


@dataclass
class Desk:
    contract: Contract
    ca: Simulated
    server: Server
    entry: dict[str, Any]
    secrets: Path

    @asynccontextmanager
    async def authority(self) -> AsyncIterator[Authority]:
        authority = open_entry(self.entry, self.secrets)
        try:
            yield authority
        finally:
            await authority.close()


@pytest.fixture(params=CONTRACTS, ids=lambda contract: contract.example)
async def desk(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Desk]:
    contract: Contract = request.param
    ca = contract.simulated()
    secrets = write_secrets(tmp_path / "secrets", **contract.secrets)
    tls_root = make_tls_files(tmp_path, {"server": "127.0.0.1", "ra": "ra.example.com", "stranger": "x.example.com"})
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cadata=tls_root)
    tls.load_cert_chain(tmp_path / "server.pem")
    if contract.with_client_certificate:
        tls.verify_mode = ssl.CERT_REQUIRED
        (secrets / contract.with_client_certificate).write_bytes((tmp_path / "ra.pem").read_bytes())
    async with serving(ca.answer, tls=tls) as server:
        entry = example(contract.example, url=f"{server.url}{contract.path}", tls_anchors=[tls_root])
        yield Desk(contract, ca, server, entry | {"anchors": [pem(ca.root.certificate)]}, secrets)


async def test_an_order_goes_the_way_that_is_described(desk: Desk) -> None:
    key = new_key()
    async with desk.authority() as authority:
        assert authority.capabilities.polls
        order, outcome, polls = await settle(authority, order_for(key), lambda: None)
        assert order.state is State.CONFIRMED, outcome
        assert polls == 2
        check_issued(order, read_entry(desk.entry), key)
        for _ in range(2):
            await authority.revoke(order, reason=1, at=now())
    assert desk.ca.revoked == {leaf(order).serial_number: desk.contract.key_compromise}


async def test_a_name_it_does_not_certify_is_refused_with_its_reason(desk: Desk) -> None:
    key = new_key()
    async with desk.authority() as authority:
        outcome = await authority.submit(order_for(key, csr=request_for(key, REFUSED_NAME)))
    assert isinstance(outcome, Refused)
    assert outcome.reason.split()[0] in {"subject_dn:", "The", "Wrong"}


async def test_the_self_test_asks_nothing_that_costs(desk: Desk) -> None:
    async with desk.authority() as authority:
        await authority.check()
    assert {asked.method for asked in desk.server.asked if not asked.path.endswith("/login")} <= {"GET", "HEAD"}
    assert desk.ca.requests == {}


async def test_who_does_not_know_us_says_so(desk: Desk, tmp_path: Path) -> None:
    wrong = desk.secrets / desk.contract.wrong
    if wrong.suffix == ".pem":
        strangers = tmp_path / "strangers"
        strangers.mkdir()
        make_tls_files(strangers, {"stranger": "x.example.com"})
        wrong.write_bytes((strangers / "stranger.pem").read_bytes())
    else:
        wrong.write_text("a guess")
    async with desk.authority() as authority:
        with pytest.raises(RakkanError) as refusal:
            await authority.submit(order_for(new_key()))
    assert refusal.value.code is Code.AUTHORITY_REFUSED, refusal.value.detail
    assert desk.ca.requests == {}


async def test_a_web_server_of_another_root_is_not_told_our_secrets(desk: Desk, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    entry = desk.entry | {"connection": desk.entry["connection"] | {"tls_anchors": [make_tls_files(elsewhere, {})]}}
    authority = open_entry(entry, desk.secrets)
    with pytest.raises(RakkanError) as refusal:
        await authority.submit(order_for(new_key()))
    await authority.close()
    assert refusal.value.code is Code.AUTHORITY_UNTRUSTED
    assert desk.server.asked == []


async def test_a_token_that_ends_is_asked_for_anew_and_the_order_goes_on(tmp_path: Path) -> None:
    contract = CONTRACTS[0]
    ca = HVCA()
    secrets = write_secrets(tmp_path / "secrets", **contract.secrets)
    async with serving(ca.answer) as server:
        entry = example(contract.example, url=f"{server.url}/v2", client_certificate=None)
        authority = open_entry(entry | {"anchors": [pem(ca.root.certificate)]}, secrets)
        assert isinstance(await authority.submit(order_for(new_key())), Pending)
        assert isinstance(await authority.submit(order_for(new_key())), Pending)
        assert ca.tokens == 1
        ca.tokens += 1  # the server forgot the one it gave
        assert isinstance(await authority.submit(order_for(new_key())), Pending)
        await authority.close()
    assert ca.tokens == 3
    assert len(ca.requests) == 3


@asynccontextmanager
async def ejbca(tmp_path: Path, **simulated: Any) -> AsyncIterator[tuple[SimulatedEJBCA, Authority]]:
    ca = SimulatedEJBCA(**simulated)
    secrets = write_secrets(tmp_path / "secrets", ejbca_enrollment_code="the code", token="bearer")
    async with serving(ca.answer) as server:
        url = f"{server.url}/ejbca/ejbca-rest-api"
        entry = example("ejbca", url=url, client_certificate=None, bearer="token", tls_anchors=[])
        authority = open_entry(entry | {"anchors": [pem(ca.root.certificate)]}, secrets)
        yield ca, authority
        await authority.close()


async def test_ejbca_without_approval_issues_at_once(tmp_path: Path) -> None:
    async with ejbca(tmp_path, waits=0) as (_, authority):
        outcome = await authority.submit(order_for(new_key()))
    assert isinstance(outcome, Issued)
    assert len(outcome.chain) == 3


async def test_what_ejbca_denied_is_refused(tmp_path: Path) -> None:
    async with ejbca(tmp_path) as (ca, authority):
        order = order_for(new_key())
        order = after(order, await authority.submit(order))
        ca.denies = True
        outcome = await authority.poll(order)
    assert outcome == Refused(f"Request ID {(order.handle or b'').decode()} was rejected: not known.")


async def test_what_ejbca_finalized_before_is_left_to_an_operator(tmp_path: Path) -> None:
    """Killed between the answer and our note of it: the certificate exists, and only a person can find it."""
    async with ejbca(tmp_path) as (_, authority):
        order = order_for(new_key())
        order = after(order, await authority.submit(order))
        order = after(order, await authority.poll(order))
        assert isinstance(await authority.poll(order), Issued)
        with pytest.raises(RakkanError) as refusal:
            await authority.poll(order)
    assert refusal.value.code is Code.INDETERMINATE


async def test_an_end_entity_of_ejbca_stays_the_same_over_its_renewals(tmp_path: Path) -> None:
    async with ejbca(tmp_path, waits=0) as (_, authority):
        names = [authority._username(order) for order in _renewals()]  # type: ignore[attr-defined]  # EJBCA's own
    assert len(set(names)) == 1


def _renewals() -> list[Any]:
    first = order_for(new_key())
    second = order_for(new_key(), previous=first)
    return [first, second, order_for(new_key(), previous=second)]


FINDING: dict[str, Any] = {
    "label": "A CA that knows our names for orders",
    "protocol": "rest",
    "connection": {
        "order": {"path": "/orders", "body": {"reference": "{order_id}", "csr": "{csr_pem}"}},
        "find": {"method": "GET", "path": "/orders?reference={order_id}"},
        "status": {"method": "GET", "path": "/orders/{number}"},
        "keep": {"number": "/orders/0/number"},
        "states": {"at": "/orders/0/state", "pending": ["new"], "issued": ["done"], "refused": ["no"]},
        "certificate_at": "/orders/0/certificate",
    },
    "profiles": {"signing": {"label": "Signing"}},
    "default_profile": "signing",
}


class Finder(Simulated):
    """Its first answer to an order gets lost."""

    def answer(self, asked: Asked) -> Raw:
        if asked.method == "POST":
            self.take(asked.json["csr"], asked.json["reference"])
            return Raw([], resets=True)
        number = asked.path.rpartition("=" if "=" in asked.path else "/")[2]
        known = [{"number": number, "state": "new"}] if number in self.requests else []
        return reply_json(200, {"orders": known})


async def test_an_order_whose_answer_was_lost_is_looked_for_and_not_placed_again(tmp_path: Path) -> None:
    ca = Finder()
    async with serving(ca.answer) as server:
        entry = FINDING | {"connection": FINDING["connection"] | {"url": server.url}}
        authority = open_entry(entry | {"anchors": [pem(ca.root.certificate)]}, tmp_path)
        assert authority.capabilities.repeatable
        order = order_for(new_key())
        with pytest.raises(RakkanError) as refusal:
            await authority.submit(order)
        assert refusal.value.code is Code.AUTHORITY_UNAVAILABLE
        outcome = await authority.submit(replace(order, asked_before=True))
        assert isinstance(outcome, Pending)
        ca.requests.clear()  # it never arrived: then it is placed
        with pytest.raises(RakkanError):
            await authority.submit(replace(order, asked_before=True))
        assert order.order_id in ca.requests
        await authority.close()
    assert [asked.method for asked in server.asked] == ["POST", "GET", "GET", "POST"]
