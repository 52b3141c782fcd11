"""Every form of the pages, filled in by somebody hostile, or sent from another site. A new form is missed here."""

from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute

from services.authentication.sessions import Session
from tests.support.signers import TICKET, Front
from tests.support.signing_in import Person

HOSTILE = (
    "\"'><script>alert(1)</script><img src=x onerror=alert(1)>",
    "{{1234*4321}}{% raw %}{client}%s",
    "javascript:alert(1)",
    "\u202e\u2066\u0000\r\nSet-Cookie: a=b",
    "' or 1=1 --",
    "あ" * 10_000,
)
ASSERTION = ("credential_id", "client_data_json", "authenticator_data", "signature", "user_handle")
FORMS: dict[str, tuple[str, tuple[str, ...]]] = {
    "/login/begin": ("login", ("next",)),
    "/login/passkey": ("login", ("next", "login_id", *ASSERTION)),
    "/login/password": ("login", ("next", "tenant", "user", "password", "code")),
    "/logout": ("logout", ("next",)),
    "/approve/{request_id}": ("approve/req-1", ("context_id", *ASSERTION)),
    "/approve/{request_id}/refuse": ("approve/req-1", ("context_id",)),
    "/enroll/begin": ("enroll", ("ticket", "label")),
    "/enroll": ("enroll/e-1", ("label", "new_client_data_json", "attestation_object", *ASSERTION)),
    "/account/remove/{authenticator_id}": ("remove/a-1", ()),
    "/account/password": ("password", ("pending", "password", "code")),
    "/account/password/remove": ("password/remove", ()),
}
"""By path: what its token is for, and its other fields."""


@pytest.fixture
async def alice(tmp_path: Path) -> Person:
    key = tmp_path / "key"
    key.write_text("A" * 43 + "=")
    alice = Person(Front(secrets_key_file=key))
    alice.front.requests.add()
    await alice.log_in()
    await alice.open()
    return alice


def address(path: str) -> str:
    return path.format(request_id="req-1", authenticator_id="a-1")


def token(person: Person, name: str) -> str:
    cookie = str(person.browser.cookies["__Host-rakkan"])
    return Session(cookie, person.front.accounts.sessions[cookie]).form_token(name)


def fixed(path: str) -> dict[str, str]:
    return {"enrollment_id": "e-1"} if path == "/enroll" else {}


def test_every_form_is_tried() -> None:
    app = vars(Front().app)["_app"]
    assert isinstance(app, FastAPI)
    routes = [route for route in app.routes if isinstance(route, APIRoute)]
    assert {route.path for route in routes if "POST" in (route.methods or ())} == FORMS.keys()


@pytest.mark.parametrize("path", FORMS)
async def test_nothing_that_is_typed_becomes_markup_a_header_or_a_fault(alice: Person, path: str) -> None:
    name, fields = FORMS[path]
    for field in (*fields, "form_token"):
        for text in HOSTILE:
            alice.front.clock.pass_s(60)
            if str(alice.browser.cookies["__Host-rakkan"]) in alice.front.accounts.ended:
                await alice.log_in()
            filled = {"form_token": token(alice, name)} | fixed(path) | dict.fromkeys(fields, "x") | {field: text}
            answer = await alice.browser.post(address(path), data=filled)
            assert answer.status_code < 500, (field, text, answer.text)
            assert "<img src=x" not in answer.text, field
            assert answer.text.count("<script") <= 1, field
            assert str(1234 * 4321) not in answer.text, field
            assert not any(odd in answer.text for odd in "\u202e\u2066\u0000"), field
            assert "a=b" not in answer.headers.get("set-cookie", ""), field
            assert answer.headers.get("location", "/").startswith(("/", "https://app.example/")), field
            assert not answer.headers.get("location", "").startswith("//"), field
            assert "default-src 'none'" in answer.headers["content-security-policy"], field


@pytest.mark.parametrize("path", FORMS)
async def test_no_form_is_taken_from_another_site_session_or_page(alice: Person, path: str) -> None:
    name, fields = FORMS[path]
    bob = Person(alice.front, ("acme", "bob"))
    await bob.log_in()
    own = token(alice, name)
    before = (dict(alice.front.requests.outcomes), dict(alice.front.accounts.passwords), len(alice.front.sam.asked))
    tries: dict[str, tuple[dict[str, str], dict[str, str]]] = {
        "no token": ({}, {}),
        "an empty one": ({"form_token": ""}, {}),
        "of another form": ({"form_token": token(alice, "another")}, {}),
        "of another person": ({"form_token": token(bob, name)}, {}),
        "from another site": ({"form_token": own}, {"Sec-Fetch-Site": "cross-site"}),
        "from another host of the domain": ({"form_token": own}, {"Sec-Fetch-Site": "same-site"}),
    }
    for what, (given, headers) in tries.items():
        filled = {"any": "x"} | dict.fromkeys(fields, "x") | fixed(path) | given
        answer = await alice.browser.post(address(path), data=filled, headers=headers)
        assert answer.status_code == 403, what
    after = (alice.front.requests.outcomes, alice.front.accounts.passwords, len(alice.front.sam.asked))
    assert after == before
    assert TICKET in alice.front.sam.tickets
