"""The approval page as browsers meet it: whose it is, what it shows, and every way it cannot be misused."""

import html
import re
import urllib.parse
from typing import Any

import httpx
import pytest

from services.authentication import approving
from shared.algorithms import Hash
from shared.contracts.approval import ApproveContext, Document, RefuseContext
from shared.errors import Code, RakkanError
from tests.support.signers import Front, credential
from tests.support.signing_in import ALICE, Person, form_of, options_of


@pytest.fixture
def front() -> Front:
    return Front()


@pytest.fixture
def alice(front: Front) -> Person:
    return Person(front)


async def ready(alice: Person, **changed: Any) -> httpx.Response:
    """Alice, logged in, before the page of her request."""
    alice.front.requests.add(**changed)
    await alice.open()
    await alice.log_in("/approve/req-1")
    return await alice.open()


# --- the way of an approval ---


async def test_a_signer_logs_in_looks_and_approves(alice: Person) -> None:
    alice.front.requests.add()
    first = await alice.open()
    assert (first.status_code, first.headers["location"]) == (303, "/login?next=%2Fapprove%2Freq-1")
    back = await alice.log_in("/approve/req-1")
    assert (back.status_code, back.headers["location"]) == (303, "/approve/req-1")
    page = await alice.open()
    (context,) = alice.front.sam.contexts.values()
    for seen in ("Documenso", "acme", "Alice Example", "Rakkan Test CA", "2 documents",
                 "2028-03-31 23:59 JST", "Contract 2026-118.pdf", "別紙1 見積書.pdf", context.opened.reference_code,
                 "app.example", alice.front.requests.rows["req-1"].documents[0].digest.hex()[:8]):  # fmt: skip
        assert seen in page.text, seen
    answer = await alice.approve(page)
    assert answer.status_code == 303
    assert answer.headers["location"].startswith("https://app.example/callback?x=1&code=")
    assert alice.front.requests.outcomes["req-1"] == {
        "outcome": "granted",
        "tenant_id": "acme",
        "user_id": "alice",
        "authorization_id": f"auth-{context.opened.context_id}",
        "credential_id": "cred-alice",
        "expires_in_s": 120,
    }


async def test_the_context_holds_what_the_client_asked_and_nothing_else(alice: Person) -> None:
    await ready(alice)
    asked = next(iter(alice.front.sam.contexts.values())).request
    row = alice.front.requests.rows["req-1"]
    assert (asked.documents, asked.hash, asked.signatures) == (row.documents, Hash.SHA256, 2)
    assert (asked.tenant_id, asked.user_id, asked.client_id) == ("acme", "alice", "documenso")


async def test_a_reload_shows_the_same_code(alice: Person) -> None:
    page = await ready(alice)
    again = await alice.open()
    assert options_of(page) == options_of(again)
    assert len(alice.front.sam.contexts) == 1


async def test_consent_to_a_new_credential_shows_whose_certificate_it_will_be(alice: Person) -> None:
    wanted = {"authority": "blue", "certificate_profile": "signing", "labels": ("Blue <CA>", "Contracts")}
    page = await ready(alice, scope="credential-creation", credential_id=None, documents=(), hash=None, **wanted)
    for seen in ("Blue &lt;CA&gt;", "blue", "Contracts", "Documenso", "app.example"):
        assert seen in page.text, seen
    assert not alice.front.sam.contexts
    answer = await alice.browser.post("/approve/req-1", data=form_of(page, "/approve/req-1"))
    assert answer.status_code == 303
    outcome = alice.front.requests.outcomes["req-1"]
    assert (outcome["outcome"], outcome["authorization_id"], outcome["credential_id"]) == ("granted", None, None)


async def test_consent_to_the_end_of_a_credential_names_it(alice: Person) -> None:
    page = await ready(alice, scope="credential-deletion", documents=(), hash=None)
    assert "cred-alice" in page.text
    assert (await alice.browser.post("/approve/req-1", data=form_of(page, "/approve/req-1"))).status_code == 303
    outcome = alice.front.requests.outcomes["req-1"]
    assert (outcome["outcome"], outcome["authorization_id"], outcome["credential_id"]) == (
        "granted",
        None,
        "cred-alice",
    )


@pytest.mark.parametrize("scope", ["credential-creation", "credential-deletion"])
async def test_no_is_taken_to_both(alice: Person, scope: str) -> None:
    page = await ready(alice, scope=scope, documents=(), hash=None, authority="blue")
    await alice.browser.post("/approve/req-1/refuse", data=form_of(page, "/approve/req-1/refuse"))
    assert alice.front.requests.outcomes["req-1"]["outcome"] == "denied"


ONCE: dict[str, Any] = {"credential_id": None, "authority": "red", "certificate_profile": "once"}


async def test_a_credential_made_for_one_approval_is_waited_for_and_then_shown(alice: Person) -> None:
    alice.front.sam.made = ["pending", "pending", "active"]
    page = await ready(alice, **ONCE)
    assert page.status_code == 200
    (context,) = alice.front.sam.contexts.values()
    assert context.request.credential_id == "cred-once"
    assert (await alice.approve(page)).status_code == 303
    assert alice.front.requests.outcomes["req-1"]["credential_id"] == "cred-once"


async def test_a_credential_that_is_late_can_be_waited_for_again(
    alice: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(approving, "_LOOK_AGAIN_S", 0)
    alice.front.sam.made = ["pending"]
    page = await ready(alice, **ONCE)
    assert (page.status_code, "being made" in page.text) == (202, True)
    alice.front.sam.made = ["active"]
    assert (await alice.open()).status_code == 200


async def test_a_credential_that_the_ca_refuses_lets_the_signer_go_back(alice: Person) -> None:
    alice.front.sam.made = ["refused"]
    page = await ready(alice, **ONCE)
    assert page.status_code == 403
    assert not alice.front.sam.contexts


async def test_consent_to_scope_service_needs_no_passkey_and_names_no_authorization(alice: Person) -> None:
    page = await ready(alice, scope="service", credential_id=None, documents=(), hash=None)
    assert "Allow access?" in page.text
    answer = await alice.browser.post("/approve/req-1", data=form_of(page, "/approve/req-1"))
    assert answer.status_code == 303
    assert alice.front.requests.outcomes["req-1"]["authorization_id"] is None
    assert not alice.front.sam.contexts


async def test_a_client_that_names_no_credential_lets_the_signer_choose(alice: Person) -> None:
    alice.front.sam.credentials[ALICE].append(credential("cred-second", "Alice Second"))
    page = await ready(alice, credential_id=None)
    assert "Which certificate" in page.text
    assert not alice.front.sam.contexts
    chosen = await alice.browser.get("/approve/req-1", params={"credential": "cred-second"})
    assert "Alice Second" in chosen.text
    foreign = await alice.browser.get("/approve/req-1", params={"credential": "cred-bob"})
    assert "Which certificate" in foreign.text
    assert (await alice.approve(chosen)).status_code == 303
    assert alice.front.requests.outcomes["req-1"]["credential_id"] == "cred-second"


async def test_of_one_credential_there_is_no_choice(alice: Person) -> None:
    page = await ready(alice, credential_id=None)
    assert "Do you want to sign?" in page.text


# --- refusing ---


async def test_refusing_needs_no_passkey_and_ends_context_and_request(alice: Person) -> None:
    page = await ready(alice)
    answer = await alice.browser.post("/approve/req-1/refuse", data=form_of(page, "/approve/req-1/refuse"))
    assert answer.headers["location"] == "https://app.example/callback?x=1&error=access_denied&state=s"
    assert [c.state for c in alice.front.sam.contexts.values()] == ["refused"]
    assert (await alice.approve(page)).status_code == 404


async def test_refusing_after_the_context_expired_is_still_a_refusal(alice: Person) -> None:
    page = await ready(alice)
    alice.front.clock.pass_s(301)
    answer = await alice.browser.post("/approve/req-1/refuse", data=form_of(page, "/approve/req-1/refuse"))
    assert answer.status_code == 303
    assert alice.front.requests.outcomes["req-1"]["outcome"] == "denied"


async def test_nobody_is_told_no_of_what_was_approved(alice: Person) -> None:
    page = await ready(alice)
    (context,) = alice.front.sam.contexts.values()
    context.state = "approved"  # and the answer to the browser was lost
    answer = await alice.browser.post("/approve/req-1/refuse", data=form_of(page, "/approve/req-1/refuse"))
    assert answer.status_code == 409
    assert not alice.front.requests.outcomes


async def test_the_sam_being_away_loses_nothing(alice: Person) -> None:
    page = await ready(alice)
    alice.front.sam.down = True
    assert (await alice.approve(page)).status_code == 503
    alice.front.sam.down = False
    assert (await alice.approve(page)).status_code == 303


# --- sessions and requests are bound ---


async def test_another_browser_cannot_show_or_decide_a_request(front: Front, alice: Person) -> None:
    page = await ready(alice)
    other = Person(front)
    await other.log_in()
    refused = await other.open()
    assert (refused.status_code, "another browser" in refused.text) == (403, True)
    assert "Contract 2026-118.pdf" not in refused.text
    for action in ("/approve/req-1", "/approve/req-1/refuse"):
        stolen = form_of(page, action) | alice.passkey.answer(options_of(page))
        assert (await other.browser.post(action, data=stolen)).status_code == 403
    assert not front.requests.outcomes


async def test_a_page_that_an_attacker_opened_first_is_not_the_victims(front: Front, alice: Person) -> None:
    """The attacker begins, looks, and sends the address of the page to the victim."""
    front.requests.add()
    await front.browser().get("/approve/req-1")
    await alice.log_in()
    assert (await alice.open()).status_code == 403


async def test_a_context_of_another_request_is_not_taken(alice: Person) -> None:
    page = await ready(alice)
    alice.front.requests.add("req-2", documents=(Document(digest=b"\1" * 32, label="Other"),))
    second = await alice.open("req-2")
    crossed = form_of(second, "/approve/req-2") | {"context_id": form_of(page, "/approve/req-1")["context_id"]}
    answer = await alice.browser.post("/approve/req-2", data=crossed | alice.passkey.answer(options_of(page)))
    assert answer.status_code == 409
    assert {c.state for c in alice.front.sam.contexts.values()} == {"open"}


async def test_a_request_for_another_signer_or_tenant_is_not_shown(front: Front) -> None:
    for who, changed in ((("acme", "bob"), {"login_hint": "alice"}), (("other", "carol"), {})):
        visitor = Person(front, who)
        front.requests.bound.clear()
        page = await ready(visitor, **changed)
        assert page.status_code == 403
        assert "somebody else" in page.text
        assert "Contract" not in page.text
        form = form_of(page, "/logout")
        for action in ("/approve/req-1", "/approve/req-1/refuse"):
            assert (await visitor.browser.post(action, data=form)).status_code == 403


async def test_logging_out_leaves_a_request_behind(alice: Person) -> None:
    page = await ready(alice)
    await alice.browser.post("/logout", data=form_of(page, "/logout"))
    await alice.log_in()
    assert (await alice.open()).status_code == 403


# --- forms ---


@pytest.mark.parametrize("action", ["/approve/req-1", "/approve/req-1/refuse"])
@pytest.mark.parametrize("token", [None, "", "0" * 64, "é", "of another form"])
async def test_a_form_without_its_token_does_nothing(alice: Person, action: str, token: str | None) -> None:
    page = await ready(alice)
    form = form_of(page, "/approve/req-1") | alice.passkey.answer(options_of(page))
    del form["form_token"]
    if token == "of another form":
        form["form_token"] = form_of(page, "/logout")["form_token"]
    elif token is not None:
        form["form_token"] = token
    assert (await alice.browser.post(action, data=form)).status_code == 403
    assert not alice.front.requests.outcomes
    assert {c.state for c in alice.front.sam.contexts.values()} == {"open"}


async def test_a_form_of_another_site_is_not_read(alice: Person) -> None:
    page = await ready(alice)
    form = form_of(page, "/approve/req-1/refuse")
    for site in ("cross-site", "same-site"):
        answer = await alice.browser.post("/approve/req-1/refuse", data=form, headers={"Sec-Fetch-Site": site})
        assert answer.status_code == 403


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"form_token=a&form_token=b", "application/x-www-form-urlencoded"),
        (b"form_token=%ff", "application/x-www-form-urlencoded"),
        (b"&".join(b"a%d=1" % n for n in range(40)), "application/x-www-form-urlencoded"),
        (b"{}", "application/json"),
        (b"form_token=a", "text/plain"),
    ],
)
async def test_what_is_no_plain_form_is_refused(alice: Person, body: bytes, content_type: str) -> None:
    await ready(alice)
    answer = await alice.browser.post("/approve/req-1", content=body, headers={"Content-Type": content_type})
    assert answer.status_code == 400
    assert not alice.front.requests.outcomes


async def test_evidence_that_is_wrong_in_any_field_approves_nothing(alice: Person) -> None:
    page = await ready(alice)
    for name in ("credential_id", "client_data_json", "signature"):
        for value in ("AAAA", "!!!!", "A", "A" * 30_000, "%00", "é"):
            answer = await alice.approve(page, **{name: value})
            assert answer.status_code in (400, 403), (name, value[:9])
    for name in ("authenticator_data", "user_handle"):
        assert (await alice.approve(page, **{name: "A" * 30_000})).status_code == 400
    assert not alice.front.requests.outcomes
    assert (await alice.approve(page)).status_code == 303


async def test_another_signers_passkey_approves_nothing(front: Front, alice: Person) -> None:
    page = await ready(alice)
    bob = Person(front, ("acme", "bob"))
    form = form_of(page, "/approve/req-1") | bob.passkey.answer(options_of(page))
    answer = await alice.browser.post("/approve/req-1", data=form)
    assert (answer.status_code, "not accepted" in answer.text) == (403, True)
    assert not front.requests.outcomes


async def test_without_script_the_page_says_so(alice: Person) -> None:
    page = await ready(alice)
    assert "<noscript>" in page.text
    answer = await alice.browser.post("/approve/req-1", data=form_of(page, "/approve/req-1"))
    assert (answer.status_code, "JavaScript" in answer.text) == (400, True)
    assert not any(isinstance(asked, ApproveContext) for asked in alice.front.sam.asked)


# --- time, again and again ---


async def test_an_expired_context_makes_way_for_a_new_one(alice: Person) -> None:
    page = await ready(alice)
    alice.front.clock.pass_s(301)
    answer = await alice.approve(page)
    assert (answer.status_code, "Please look once more" in answer.text) == (409, True)
    fresh = await alice.open()
    assert options_of(fresh)["challenge"] != options_of(page)["challenge"]
    assert (await alice.approve(page)).status_code == 409
    assert (await alice.approve(fresh)).status_code == 303


async def test_an_expired_request_is_gone(alice: Person) -> None:
    page = await ready(alice)
    alice.front.clock.pass_s(601)
    assert (await alice.open()).status_code == 404
    assert (await alice.approve(page)).status_code == 404


async def test_a_second_submit_and_the_back_button_decide_nothing(alice: Person) -> None:
    page = await ready(alice)
    assert (await alice.approve(page)).status_code == 303
    before = dict(alice.front.requests.outcomes)
    assert (await alice.approve(page)).status_code == 404
    refusing = await alice.browser.post("/approve/req-1/refuse", data=form_of(page, "/approve/req-1/refuse"))
    assert refusing.status_code == 404
    assert (await alice.open()).status_code == 404
    assert alice.front.requests.outcomes == before
    assert page.headers["cache-control"] == "no-store"


async def test_an_approval_whose_answer_was_lost_can_be_looked_at_once_more(alice: Person) -> None:
    page = await ready(alice)
    (context,) = alice.front.sam.contexts.values()
    context.state = "approved"
    answer = await alice.approve(page)
    assert (answer.status_code, 'href="/approve/req-1?again=1"' in answer.text) == (409, True)
    anew = await alice.browser.get("/approve/req-1?again=1")
    assert (anew.status_code, anew.headers["location"]) == (303, "/approve/req-1")
    fresh = await alice.open()
    assert (await alice.approve(fresh)).status_code == 303


async def test_the_session_idles_out_and_nothing_is_decided(alice: Person) -> None:
    page = await ready(alice)
    alice.front.clock.pass_s(901)
    alice.front.requests.add(expires_at=alice.front.clock.now().replace(year=2027))
    answer = await alice.approve(page)
    assert (answer.status_code, "session ended" in answer.text) == (403, True)
    assert not alice.front.requests.outcomes


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (Code.AUTHENTICATOR_REQUIRED, 403),
        (Code.CREDENTIAL_UNKNOWN, 403),
        (Code.CERTIFICATE_EXPIRED, 403),
        (Code.TOO_MANY_SIGNATURES, 403),
        (Code.MALFORMED, 403),
        (Code.ASSURANCE_REFUSED, 403),
        (Code.OVERLOADED, 503),
        (Code.INTERNAL, 500),
    ],
)
async def test_what_the_sam_refuses_is_said_on_a_page(alice: Person, code: Code, status: int) -> None:
    def refuse(_: object) -> None:
        raise RakkanError(code, "<b>detail</b>")

    alice.front.sam.open_context = refuse  # type: ignore[method-assign, assignment] # a SAM that refuses
    page = await ready(alice)
    assert page.status_code == status
    assert "detail" not in page.text
    assert "<h1>" in page.text
    if status == 403:
        assert 'Back to <bdi dir="auto">Documenso' in page.text
        assert "https://app.example;" in page.headers["content-security-policy"]
        back = await alice.browser.post("/approve/req-1/refuse", data=form_of(page, "/approve/req-1/refuse"))
        assert (back.status_code, alice.front.requests.outcomes["req-1"]["outcome"]) == (303, "denied")


# --- what is shown ---

HOSTILE = "\"'><script>alert(1)</script><img src=x onerror=alert(1)>{{7*7}}{client}%s&lt;"


async def test_no_foreign_text_becomes_markup(front: Front, alice: Person) -> None:
    front.sam.names[ALICE] = HOSTILE
    front.sam.credentials[ALICE] = [
        credential("cred-alice", "x").model_copy(update={"description": HOSTILE, "subject": HOSTILE, "issuer": HOSTILE})
    ]
    page = await ready(
        alice,
        client_name=HOSTILE,
        description=HOSTILE,
        documents=(Document(digest=b"\1" * 32, label=HOSTILE),),
    )
    assert page.status_code == 200
    for address in ("/account", "/account?lang=ja", "/approve/req-1?lang=ja", "/enroll?ticket=" + HOSTILE):
        page = await alice.browser.get(address)
        assert page.status_code == 200, address
        assert "<img src=x" not in page.text
        assert page.text.count("<script") == 1
        assert "49" not in re.sub(r"[0-9a-f]{8,}|\d{4}-\d\d-\d\d \d\d:\d\d|data-get=\"[^\"]*\"", "", page.text)
    await alice.approve(await alice.open())
    assert "<img src=x" not in (await alice.browser.get("/account")).text


async def test_the_name_in_the_certificate_is_shown_in_words(front: Front, alice: Person) -> None:
    hostile = "CN=\u202e\\<b\\>&花子,2.5.4.5=PNOJP-1,O=A\\,B,2.999.1=x"
    front.sam.credentials[ALICE] = [credential("cred-alice", "x").model_copy(update={"subject": hostile})]
    page = await ready(alice)
    for part in (
        'Name:</span> <bdi dir="auto"><b class="odd">U+202E</b>&lt;b&gt;&amp;花子</bdi>',
        'Serial number:</span> <bdi dir="auto">PNOJP-1</bdi>',
        'Organization:</span> <bdi dir="auto">A,B</bdi>',
        '2.999.1</span> <bdi dir="auto">x</bdi>',
    ):
        assert part in page.text
    assert "2.5.4.5" not in page.text
    assert "識別番号" in (await alice.browser.get("/approve/req-1?lang=ja")).text


async def test_control_and_direction_characters_are_shown_not_obeyed(alice: Person) -> None:
    label = "invoice\u202efdp.exe\u0000\u2066\n\u200b\u2028\ue000"
    page = await ready(alice, documents=(Document(digest=b"\1" * 32, label=label),))
    for number in ("202E", "0000", "2066", "000A", "200B", "2028", "E000"):
        assert f'<b class="odd">U+{number}</b>' in page.text
    assert not any(c in page.text for c in "\u202e\u0000\u2066\u200b\u2028\ue000")
    assert '<bdi dir="auto">invoice' in page.text


async def test_right_to_left_text_stays_in_its_place(alice: Person) -> None:
    page = await ready(alice, documents=(Document(digest=b"\1" * 32, label="عقد 2026"),))
    assert '<bdi dir="auto">عقد 2026</bdi>' in page.text


async def test_an_endless_text_is_cut(alice: Person) -> None:
    page = await ready(alice, description="あ" * 10_000, client_name="N" * 255)
    assert "あ" * 500 + "&hellip;" in page.text
    assert "あ" * 501 not in page.text


async def test_a_thousand_documents_are_all_listed(alice: Person) -> None:
    many = tuple(Document(digest=n.to_bytes(32, "big"), label=f"No. {n}") for n in range(1000))
    page = await ready(alice, documents=many, signatures=1000)
    assert page.text.count('<li><div class="label">') == 1000
    assert "1000 documents" in page.text


async def test_a_page_is_small_and_may_load_nothing_from_elsewhere(alice: Person) -> None:
    page = await ready(alice)
    sizes = [len(page.content)]
    for address in set(re.findall(r'(?:href|src)="(/static/[^"]*)"', page.text)):
        static = await alice.browser.get(html.unescape(address))
        assert static.status_code == 200
        assert "immutable" in static.headers["cache-control"]
        sizes.append(len(static.content))
    assert len(sizes) == 4
    assert sum(sizes) < 60_000
    assert not re.search(r"(?:src|href|action)=\"(?!/|#)", page.text)
    policy = page.headers["content-security-policy"]
    assert policy == (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "form-action 'self' https://app.example; frame-ancestors 'none'; base-uri 'none'"
    )
    assert (page.headers["referrer-policy"], page.headers["x-content-type-options"]) == ("no-referrer", "nosniff")
    assert not re.search(r"\son\w+=|style=|javascript:", page.text)


async def test_the_policy_names_where_an_apps_own_scheme_leads(alice: Person) -> None:
    page = await ready(alice, redirect_uri="com.example.app:/callback")
    assert "form-action 'self' com.example.app:;" in page.headers["content-security-policy"]


@pytest.mark.parametrize("address", ["https://a b/", "https://x;script-src */", "https://u@x/", "https://例.jp/"])
async def test_a_redirect_uri_that_no_policy_can_name_shows_no_page(alice: Person, address: str) -> None:
    assert (await ready(alice, redirect_uri=address)).status_code == 500


async def test_nothing_is_served_but_three_files(alice: Person) -> None:
    for name in ("..%2fpages.py", "base.html", "%2e%2e/settings.py", "rakkan.css%00"):
        assert (await alice.browser.get(f"/static/{name}")).status_code == 404


# --- languages ---


async def test_the_language_is_the_browsers_the_requests_or_the_signers_choice(front: Front, alice: Person) -> None:
    page = await ready(alice)
    assert page.headers["content-language"] == "en"
    japanese = await alice.browser.get("/approve/req-1", headers={"Accept-Language": "fr, ja-JP;q=0.8, en;q=0.7"})
    assert "署名しますか" in japanese.text
    assert '<html lang="ja">' in japanese.text
    front.requests.rows["req-1"] = front.requests.add(lang="ja-JP")
    assert "署名しますか" in (await alice.open()).text
    assert "Do you want to sign" in (await alice.browser.get("/approve/req-1?lang=en")).text
    assert "Do you want to sign" in (await alice.open()).text
    for nonsense in ("xx", "../../etc", "ja" * 100, "<b>"):
        assert (await alice.browser.get("/approve/req-1", params={"lang": nonsense})).status_code == 200


async def test_language_links_lead_to_the_same_page(alice: Person) -> None:
    page = await alice.browser.get("/login", params={"next": "/approve/req-1"})
    (link,) = re.findall(r'href="([^"]*)" lang="ja"', page.text)
    japanese = await alice.browser.get(html.unescape(link))
    assert form_of(japanese, "/login/passkey")["next"] == "/approve/req-1"
    assert urllib.parse.urlsplit(link).path == "/login"


async def test_refusing_asks_the_sam_once(alice: Person) -> None:
    page = await ready(alice)
    await alice.browser.post("/approve/req-1/refuse", data=form_of(page, "/approve/req-1/refuse"))
    assert sum(isinstance(asked, RefuseContext) for asked in alice.front.sam.asked) == 1
