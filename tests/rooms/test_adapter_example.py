"""The adapter on our page for partners is taken from there, put beside the others and run."""

import hashlib
import hmac
import importlib
import json
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import services.ca_connector.authorities as adapters
from services.ca_connector.orders import Refused, State
from shared.errors import Code, RakkanError
from tests.support.acting_http import Asked, Raw, reply_json, serving
from tests.support.ordering import (
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
from tests.support.peers.running import NOBODY_LISTENS, changed, write_secrets
from tests.support.simulated_authorities import REFUSED_NAME, Simulated, pem

PAGE = Path(__file__).parents[2] / "docs" / "partners" / "write-a-ca-adapter.md"


def block(language: str) -> str:
    (found,) = re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return str(found)


@pytest.fixture(scope="module", autouse=True)
def _in_place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One file beside the others, and nothing else."""
    folder = tmp_path_factory.mktemp("adapters")
    (folder / "sakura.py").write_text(block("python"), encoding="utf-8")
    adapters.__path__.append(str(folder))
    importlib.invalidate_caches()
    yield
    adapters.__path__.remove(str(folder))
    sys.modules.pop("services.ca_connector.authorities.sakura", None)


@dataclass
class SakuraTrust(Simulated):
    """As the page describes it."""

    def answer(self, asked: Asked) -> Raw:
        signed = hmac.new(b"the key", f"{asked.method} {asked.path}\n".encode() + asked.body, hashlib.sha256)
        if not hmac.compare_digest(asked.headers.get("x-sakura-signature", ""), signed.hexdigest()):
            return reply_json(401, {"reason": "signature"})
        steps = asked.path.split("/")[1:]
        if steps == ["issuers"]:
            return reply_json(200, {"bundle": pem(self.issuing.certificate) + pem(self.root.certificate)})
        if steps[0] == "certificates":
            return self._revoke(int(steps[1], 16), asked.json["reason"])
        if asked.method == "POST":
            assert asked.json["product"] == "DOC-1Y"
            ticket = self.take(asked.json["csr"])
            return reply_json(422, {"reason": "Not ours."}) if ticket is None else reply_json(202, {"ticket": ticket})
        if steps[1] not in self.requests:
            return reply_json(404, {"reason": "unknown"})
        issued = self.ready(steps[1])
        return reply_json(200, {} if issued is None else {"bundle": pem(issued) + pem(self.issuing.certificate)})

    def _revoke(self, serial_number: int, reason: int) -> Raw:
        certificate = next(one for one in self.issued.values() if one.serial_number == serial_number)
        self.revoke(certificate, str(reason))
        return reply_json(200, {"revoked": True})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_secrets(tmp_path / "secrets", sakura_key="the key", wrong="a guess")


def entry(ca: Simulated, url: str, **connection: Any) -> dict[str, Any]:
    return changed(json.loads(block("json")), url=url, **connection) | {"anchors": [pem(ca.root.certificate)]}


async def test_the_adapter_of_the_page_orders_polls_and_revokes(folder: Path) -> None:
    ca, key = SakuraTrust(), new_key()
    async with serving(ca.answer) as server:
        authority = open_entry(entry(ca, server.url), folder)
        order, outcome, polls = await settle(authority, order_for(key), lambda: None)
        assert (order.state, polls) == (State.CONFIRMED, 2), outcome
        check_issued(order, read_entry(entry(ca, server.url)), key)
        for _ in range(2):
            await authority.revoke(order, reason=1, at=now())
        assert (await authority.check()).chain[0] == ca.issuing.certificate
        await authority.close()
    assert ca.revoked == {leaf(order).serial_number: "1"}


async def test_the_adapter_of_the_page_is_refused_with_a_reason(folder: Path) -> None:
    ca, key = SakuraTrust(), new_key()
    async with serving(ca.answer) as server:
        authority = open_entry(entry(ca, server.url), folder)
        outcome = await authority.submit(order_for(key, csr=request_for(key, REFUSED_NAME)))
        await authority.close()
    assert outcome == Refused("Not ours.")


def nonsense(_: Asked) -> Raw:
    return reply_json(200, [])


def silence(_: Asked) -> Raw:
    return Raw([], resets=True)


@pytest.mark.parametrize(
    ("answer", "connection", "code"),
    [
        (None, {"key": "wrong"}, Code.AUTHORITY_REFUSED),
        (None, {"url": f"http://{NOBODY_LISTENS}"}, Code.AUTHORITY_UNAVAILABLE),
        (nonsense, {}, Code.AUTHORITY_UNTRUSTED),
        (silence, {}, Code.INDETERMINATE),
    ],
)
async def test_the_adapter_of_the_page_says_which_of_the_four_errors_it_is(
    answer: Callable[[Asked], Raw] | None, connection: dict[str, Any], code: Code, folder: Path
) -> None:
    ca = SakuraTrust()
    async with serving(answer or ca.answer) as server:
        authority = open_entry(entry(ca, **{"url": server.url, **connection}), folder)
        with pytest.raises(RakkanError) as refusal:
            await authority.submit(order_for(new_key()))
        await authority.close()
    assert refusal.value.code is code
