"""Log-in, sessions, enrollment and the account as browsers meet them; and the passwords that log in only."""

import base64
import html
import re
import secrets
from datetime import timedelta
from pathlib import Path

import httpx
import pyotp
import pytest
import segno

from services.authentication import passwords
from services.authentication.passwords import Vault
from services.authentication.sessions import Sessions
from shared.errors import Code, RakkanError
from shared.settings import SettingsError
from tests.support.signers import TICKET, Front, Passkey, b64
from tests.support.signing_in import Person, form_of, options_of

PASSWORD = "correct horse battery staple"


@pytest.fixture
def front(tmp_path: Path) -> Front:
    key = tmp_path / "secrets_key"
    key.write_text(base64.b64encode(secrets.token_bytes(32)).decode() + "\n")
    return Front(secrets_key_file=key)


@pytest.fixture
def alice(front: Front) -> Person:
    return Person(front)


def session_id(person: Person) -> str:
    return str(person.browser.cookies["__Host-rakkan"])


# --- sessions ---


async def test_a_log_in_changes_the_cookie_and_kills_the_one_before(alice: Person) -> None:
    await alice.browser.get("/login")
    before = session_id(alice)
    await alice.log_in()
    assert session_id(alice) != before
    thief = alice.front.browser()
    thief.cookies.set("__Host-rakkan", before, domain="as.example")
    assert (await thief.get("/account")).headers["location"] == "/login?next=%2Faccount"


async def test_a_cookie_that_somebody_planted_is_worth_nothing_after_the_log_in(front: Front, alice: Person) -> None:
    attacker = front.browser()
    await attacker.get("/login")
    planted = attacker.cookies["__Host-rakkan"]
    alice.browser.cookies.set("__Host-rakkan", planted, domain="as.example")
    await alice.log_in()
    assert (await attacker.get("/account")).status_code == 303
    alice.browser.cookies.clear()
    alice.browser.cookies.set("__Host-rakkan", "chosen-by-somebody-else-entirely", domain="as.example")
    answer = await alice.browser.get("/login")
    assert "chosen-by-somebody-else-entirely" not in answer.headers["set-cookie"]


async def test_the_cookie_is_for_this_host_alone_and_no_script(alice: Person) -> None:
    answer = await alice.browser.get("/login")
    name, *attributes = answer.headers["set-cookie"].split("; ")
    assert name.startswith("__Host-rakkan=")
    assert attributes == ["Path=/", "HttpOnly", "SameSite=Lax", "Secure"]


async def test_on_loopback_without_tls_the_cookie_has_a_plain_name() -> None:
    answer = await Front(origin="http://localhost:8080").browser().get("/login")
    assert answer.headers["set-cookie"].startswith("rakkan=")
    assert "Secure" not in answer.headers["set-cookie"]


async def test_a_session_ends_when_idle_when_old_and_when_told(alice: Person) -> None:
    await alice.log_in()
    alice.front.clock.pass_s(890)
    assert (await alice.browser.get("/account")).status_code == 200
    alice.front.clock.pass_s(890)
    assert (await alice.browser.get("/account")).status_code == 200
    alice.front.clock.pass_s(901)
    assert (await alice.browser.get("/account")).status_code == 303
    await alice.log_in()
    for _ in range(33):
        alice.front.clock.pass_s(880)
        last = await alice.browser.get("/account")
    assert last.status_code == 303
    await alice.log_in()
    page = await alice.browser.get("/account")
    kept = session_id(alice)
    await alice.browser.post("/logout", data=form_of(page, "/logout"))
    assert session_id(alice) != kept
    alice.browser.cookies.set("__Host-rakkan", kept, domain="as.example")
    assert (await alice.browser.get("/account")).status_code == 303


async def test_cookies_of_any_shape_open_nothing(front: Front) -> None:
    sessions = Sessions(front.accounts, https=True, idle_s=900, lifetime_s=3600, now=front.clock.now)
    for text in ("", "x", "x" * 129, "' or 1=1 --", "\0"):
        assert await sessions.of({"__Host-rakkan": text}) is None


# --- by passkey ---


async def test_a_log_in_leads_only_to_pages_of_ours(alice: Person) -> None:
    for wished in ("//evil.example", "https://evil.example", "/\\evil.example", "/account/../../x", "/login", "",
                   "/approve/a/b", "/approve/x\r\nSet-Cookie: a=b", "javascript:alert(1)"):  # fmt: skip
        answer = await alice.log_in(wished)
        assert (answer.status_code, answer.headers["location"]) == (303, "/account"), wished


async def test_what_no_passkey_of_ours_answered_logs_nobody_in(front: Front, alice: Person) -> None:
    stranger = Passkey.new()
    answer = await alice.log_in(passkey=stranger)
    assert (answer.status_code, "not known here" in answer.text) == (403, True)
    assert front.accounts.refused == [
        {"tenant_id": "", "user_id": "", "method": "passkey", "reason": Code.EVIDENCE_REFUSED}
    ]
    assert (await alice.browser.get("/account")).status_code == 303


async def test_an_answer_is_good_once_and_for_its_challenge(alice: Person) -> None:
    page = await alice.browser.get("/login")
    form = form_of(page, "/login/passkey")
    first = (await alice.browser.post("/login/begin", data=form)).json()
    second = (await alice.browser.post("/login/begin", data=form)).json()
    crossed = form | {"login_id": first["login_id"]} | alice.passkey.answer(second)
    assert (await alice.browser.post("/login/passkey", data=crossed)).status_code == 403
    good = form | {"login_id": second["login_id"]} | alice.passkey.answer(second)
    assert (await alice.browser.post("/login/passkey", data=good)).status_code == 303
    other = alice.front.browser()
    page = await other.get("/login")
    replayed = good | {"form_token": form_of(page, "/login/passkey")["form_token"]}
    answer = await other.post("/login/passkey", data=replayed)
    assert (answer.status_code, "too long" in answer.text) == (403, True)


async def test_nobody_can_log_a_victim_in_as_somebody_else(front: Front, alice: Person) -> None:
    """Log-in CSRF: the attacker's own answers, sent from the victim's browser."""
    attacker = Person(front, ("acme", "bob"))
    page = await attacker.browser.get("/login")
    form = form_of(page, "/login/passkey")
    asked = (await attacker.browser.post("/login/begin", data=form)).json()
    forged = form | {"login_id": asked["login_id"]} | attacker.passkey.answer(asked)
    await alice.browser.get("/login")
    assert (await alice.browser.post("/login/passkey", data=forged)).status_code == 403


async def test_a_log_in_begins_only_from_the_page(front: Front) -> None:
    assert (await front.browser().post("/login/begin", data={"next": "/"})).status_code == 403
    assert front.sam.asked == []


async def begin(front: Front, address: str, times: int = 1) -> list[int]:
    browser = front.browser(address)
    form = form_of(await browser.get("/login"), "/login/passkey")
    return [(await browser.post("/login/begin", data=form)).status_code for _ in range(times)]


async def test_beginning_log_ins_without_end_is_stopped_and_costs_the_sam_no_more(front: Front) -> None:
    statuses = await begin(front, "10.0.0.9", 50)
    assert statuses == [200] * 30 + [429] * 20
    assert len(front.sam.asked) == 30
    front.clock.pass_s(5)
    assert await begin(front, "10.0.0.9", 6) == [200] * 5 + [429]


async def test_a_log_in_that_must_wait_is_told_how_long(front: Front) -> None:
    await begin(front, "10.0.0.9", 30)
    browser = front.browser("10.0.0.9")
    page = await browser.get("/login")
    stopped = await browser.post("/login/begin", data=form_of(page, "/login/passkey"))
    assert (stopped.status_code, int(stopped.headers["retry-after"])) == (429, 2)
    assert "Your passkey is not locked" in page.text


async def test_spraying_from_many_addresses_makes_nobody_wait_who_comes_from_her_own(front: Front) -> None:
    statuses = [status for n in range(60) for status in await begin(front, f"10.0.{n}.1", 10)]
    assert (statuses[:200], 429 in statuses) == ([200] * 200, True)
    assert len(front.sam.asked) <= 200 + 40 * 3
    alice = Person(front, address="192.0.2.7")
    for _ in range(3):
        assert (await alice.log_in()).status_code == 303
    front.clock.pass_s(30)
    assert await begin(front, "10.0.1.1", 10) == [200] * 10


async def test_one_customer_has_one_count_however_many_addresses_of_ipv6_are_hers(front: Front) -> None:
    statuses = [status for n in range(4) for status in await begin(front, f"2001:db8:1:2::{n:x}", 10)]
    assert statuses == [200] * 30 + [429] * 10
    assert await begin(front, "2001:db8:1:3::1") == [200]
    assert await begin(front, "not an address") == [200]
    statuses = await begin(front, "10.0.0.9", 20) + await begin(front, "::ffff:10.0.0.9", 20)
    assert statuses == [200] * 30 + [429] * 10


async def test_wrong_passkeys_without_end_are_refused_and_fill_no_log(front: Front, alice: Person) -> None:
    attacker = front.browser("10.0.0.9")
    form = form_of(await attacker.get("/login"), "/login/passkey") | {"login_id": "unheard-of"}
    made_up = form | Passkey.new().answer({"challenge": b64(b"x" * 32)})
    for _ in range(40):
        assert (await attacker.post("/login/passkey", data=made_up)).status_code == 403
    assert len(front.accounts.refused) == 10
    neighbor = Person(front, address="10.0.0.9", passkey=alice.passkey)
    assert (await neighbor.log_in()).status_code == 303


async def test_sessions_without_end_are_stopped_at_their_address(front: Front, alice: Person) -> None:
    statuses = [(await front.browser("10.0.0.9").get("/login")).status_code for _ in range(210)]
    assert statuses == [200] * 200 + [429] * 10
    stopped = await front.browser("10.0.0.9").get("/login")
    assert (stopped.headers["retry-after"], "set-cookie" in stopped.headers) == ("1", False)
    assert len(front.accounts.sessions) == 200
    assert {row.expires_at - front.clock.now() for row in front.accounts.sessions.values()} == {timedelta(hours=1)}
    assert (await alice.log_in()).status_code == 303


async def test_the_page_of_the_log_in_may_ask_this_origin(alice: Person) -> None:
    page = await alice.browser.get("/login")
    assert "connect-src 'self';" in page.headers["content-security-policy"]


# --- by password ---


async def set_password(person: Person, password: str = PASSWORD) -> str:
    await person.log_in()
    page = await person.browser.get("/account/password")
    secret = "".join(re.findall(r"<code>([A-Z2-7 ]+)</code>", page.text)[0].split())
    form = form_of(page, "/account/password") | {"password": password, "code": code_of(person, secret)}
    answer = await person.browser.post("/account/password", data=form)
    assert answer.status_code == 303, answer.text
    return secret


def code_of(person: Person, secret: str) -> str:
    return pyotp.TOTP(secret).at(person.front.clock.now())


async def by_password(browser: httpx.AsyncClient, **fields: str) -> httpx.Response:
    page = await browser.get("/login")
    form = form_of(page, "/login/password") | {"tenant": "acme", "user": "alice", "password": PASSWORD} | fields
    return await browser.post("/login/password", data=form)


async def test_the_key_of_the_codes_can_be_read_by_a_camera(alice: Person) -> None:
    await alice.log_in()
    page = await alice.browser.get("/account/password")
    [picture] = re.findall(r'<div class="qr" role="img" aria-label="[^"]+">(<svg.*?</svg>)</div>', page.text)
    address = html.unescape(re.findall(r'href="(otpauth:[^"]*)"', page.text)[0])
    drawn = segno.make(address, error="m", micro=False).svg_inline(scale=4, dark="#000", light="#fff", omitsize=True)
    assert picture == drawn
    assert "style=" not in page.text
    assert "img-src 'self'; " in page.headers["content-security-policy"]


async def test_a_password_with_a_code_logs_in_and_a_code_is_good_once(front: Front, alice: Person) -> None:
    secret = await set_password(alice)
    kept = front.accounts.passwords["acme", "alice"]
    assert kept.password_hash.startswith("$argon2id$v=19$m=65536,t=3,p=1$")
    assert secret.encode() not in kept.totp_sealed
    assert (await by_password(front.browser(), code=code_of(alice, secret))).status_code == 403  # spent when it was set
    front.clock.pass_s(31)
    code = code_of(alice, secret)
    browser = front.browser()
    as_japanese_keyboards_may = "".join(chr(ord(digit) + 0xFEE0) for digit in code)
    spaced = f"{as_japanese_keyboards_may[:3]} {as_japanese_keyboards_may[3:]}"
    assert (await by_password(browser, code=spaced)).headers["location"] == "/account"
    assert "Alice Example" in (await browser.get("/account")).text
    front.clock.pass_s(2)
    assert (await by_password(front.browser(), code=code)).status_code == 403


async def test_one_answer_for_whatever_is_wrong(front: Front, alice: Person) -> None:
    secret = await set_password(alice)
    texts = set()
    for fields in (
        {"password": "wrong password entirely"},
        {"code": "000000"},
        {"user": "nobody"},
        {"tenant": "nowhere"},
        {"user": "' or 1=1 --"},
        {"password": ""},
        {},  # right, but the tries before make it wait
    ):
        front.clock.pass_s(31 if fields else 0)
        answer = await by_password(front.browser(), **({"code": code_of(alice, secret)} | fields))
        assert answer.status_code == 403, fields
        texts.add(re.findall(r'role="alert">([^<]*)<', answer.text)[0])
    assert len(texts) == 1


async def test_guessing_waits_longer_and_longer_and_the_passkey_never(front: Front, alice: Person) -> None:
    secret = await set_password(alice)
    for n in range(16):
        await by_password(front.browser(f"10.0.0.{n}"), password="guess number one")
        front.clock.pass_s(1)
    tries, not_before = front.accounts.failures["acme", "alice"]
    assert tries < 6
    assert not_before > front.clock.now()
    assert (await by_password(front.browser("10.1.1.1"), code=code_of(alice, secret))).status_code == 403
    assert (await alice.log_in()).status_code == 303
    front.clock.pass_s(901)
    assert (await by_password(front.browser("10.1.1.1"), code=code_of(alice, secret))).status_code == 303


async def test_spraying_from_one_address_is_stopped_there_and_there_only(front: Front, alice: Person) -> None:
    secret = await set_password(alice)
    front.clock.pass_s(31)
    statuses = [(await by_password(front.browser("10.0.0.9"), user=f"user-{n}")).status_code for n in range(12)]
    assert statuses == [403] * 10 + [429] * 2
    stopped = await by_password(front.browser("10.0.0.9"), code=code_of(alice, secret))
    assert (stopped.status_code, int(stopped.headers["retry-after"]) > 0) == (429, True)
    neighbor = Person(front, address="10.0.0.9", passkey=alice.passkey)
    assert (await neighbor.log_in()).status_code == 303
    assert (await by_password(front.browser("10.0.0.10"), code=code_of(alice, secret))).status_code == 303


async def test_many_guesses_at_once_are_one_guess(front: Front, alice: Person) -> None:
    await set_password(alice)
    now = front.clock.now()
    charged = [await front.accounts.charge("acme", "alice", at=now) for _ in range(20)]
    assert sum(row is not None for row in charged) == 1


async def test_a_password_session_changes_nothing_about_how_one_is_known(front: Front, alice: Person) -> None:
    secret = await set_password(alice)
    front.clock.pass_s(31)
    browser = front.browser()
    await by_password(browser, code=code_of(alice, secret))
    page = await browser.get("/account")
    assert "/account/remove/" not in page.text
    (row,) = [a.row for a in front.sam.authenticators.values()]
    for address in (f"/account/remove/{row.authenticator_id}", "/account/password"):
        assert (await browser.get(address)).status_code == 403
    assert not next(iter(front.sam.authenticators.values())).row.removed


async def test_a_weak_password_or_a_wrong_code_sets_nothing(front: Front, alice: Person) -> None:
    await alice.log_in()
    page = await alice.browser.get("/account/password")
    secret = "".join(re.findall(r"<code>([A-Z2-7 ]+)</code>", page.text)[0].split())
    form = form_of(page, "/account/password")
    good = code_of(alice, secret)
    for password, code in (("short", good), ("a" * 12, good), ("i am alice, yes", good), ("x" * 129, good),
                           (PASSWORD, "000000"), (PASSWORD, "")):  # fmt: skip
        answer = await alice.browser.post("/account/password", data=form | {"password": password, "code": code})
        assert answer.status_code == 400, (password, code)
    assert not front.accounts.passwords


async def test_the_secret_of_another_session_is_not_taken(front: Front, alice: Person) -> None:
    await alice.log_in()
    bob = Person(front, ("acme", "bob"))
    await bob.log_in()
    mine, theirs = [await person.browser.get("/account/password") for person in (alice, bob)]
    pending = form_of(theirs, "/account/password")["pending"]
    form = form_of(mine, "/account/password") | {"pending": pending, "password": PASSWORD, "code": "000000"}
    assert (await alice.browser.post("/account/password", data=form)).status_code == 400


async def test_without_a_key_file_there_are_no_passwords() -> None:
    alice = Person(Front())
    await alice.log_in()
    assert 'name="password"' not in (await alice.browser.get("/login")).text
    assert "/account/password" not in (await alice.browser.get("/account")).text
    assert (await alice.browser.get("/account/password")).status_code == 404


async def test_a_password_can_be_removed(front: Front, alice: Person) -> None:
    await set_password(alice)
    page = await alice.browser.get("/account")
    await alice.browser.post("/account/password/remove", data=form_of(page, "/account/password/remove"))
    assert not front.accounts.passwords


def test_a_vault_opens_only_what_it_sealed_for_that(tmp_path: Path) -> None:
    vault = Vault(secrets.token_bytes(32))
    sealed = vault.seal("secret", about="totp/acme/alice")
    assert vault.open(sealed, about="totp/acme/alice") == "secret"
    for damaged, about in ((sealed, "totp/acme/bob"), (sealed[:-1] + b"x", "totp/acme/alice"), (b"", "")):
        with pytest.raises(RakkanError) as refusal:
            vault.open(damaged, about=about)
        assert refusal.value.code is Code.MALFORMED
    (tmp_path / "key").write_text("too short")
    with pytest.raises(SettingsError):
        Vault.load(tmp_path / "key")


def test_passwords_are_the_same_however_they_were_composed() -> None:
    passwords.check(passwords.hash_new("パスワードを決める時"), "パスワードを決める時")
    with pytest.raises(RakkanError):
        passwords.check(passwords.NOBODYS_HASH, "")


# --- enrollment ---


async def enrol(browser: httpx.AsyncClient, passkey: Passkey, approving: Passkey | None, query: str) -> httpx.Response:
    page = await browser.get(f"/enroll{query}")
    begun = await browser.post("/enroll/begin", data=form_of(page, "/enroll/begin") | {"label": "My <b>phone</b>"})
    if begun.status_code != 200:
        return begun
    challenge = options_of(begun, "create")["challenge"]
    form = form_of(begun, "/enroll") | {
        "new_client_data_json": b64(f'{{"challenge":"{challenge}"}}'.encode()),
        "attestation_object": b64(passkey.credential_id + passkey.secret),
    }
    if approving:
        form |= approving.answer({"challenge": challenge})
    return await browser.post("/enroll", data=form)


async def test_a_ticket_enrols_a_first_passkey_that_works_at_once(front: Front) -> None:
    new = Passkey.new()
    browser = front.browser()
    answer = await enrol(browser, new, None, f"?ticket={TICKET}")
    assert (answer.status_code, "can be used at once" in answer.text) == (200, True)
    assert "&lt;b&gt;phone" in answer.text
    again = await enrol(front.browser(), Passkey.new(), None, f"?ticket={TICKET}")
    assert (again.status_code, "invitation cannot be used" in again.text) == (403, True)


async def test_looking_at_an_invitation_spends_nothing(front: Front) -> None:
    for _ in range(3):
        assert (await front.browser().get(f"/enroll?ticket={TICKET}")).status_code == 200
    assert front.sam.asked == []


async def test_a_second_passkey_wants_a_first_one_and_time(front: Front, alice: Person) -> None:
    await alice.log_in()
    answer = await enrol(alice.browser, new := Passkey.new(), alice.passkey, "")
    assert (answer.status_code, "If it was not you" in answer.text) == (200, True)
    assert (await alice.log_in(passkey=new)).status_code == 403
    front.clock.at += timedelta(days=1)
    assert (await alice.log_in(passkey=new)).status_code == 303


async def test_a_second_passkey_without_the_first_is_refused(front: Front, alice: Person) -> None:
    await alice.log_in()
    bob = Person(front, ("acme", "bob"))
    for approving in (None, bob.passkey, Passkey.new()):
        assert (await enrol(alice.browser, Passkey.new(), approving, "")).status_code == 403
    assert len(front.sam.authenticators) == 2


async def test_nobody_enrols_without_ticket_and_log_in(front: Front) -> None:
    browser = front.browser()
    assert (await browser.get("/enroll")).headers["location"] == "/login?next=%2Faccount"
    page = await browser.get("/enroll?ticket=x")
    form = form_of(page, "/enroll/begin") | {"ticket": "", "label": "x"}
    assert (await browser.post("/enroll/begin", data=form)).status_code == 403


async def test_an_enrollment_is_finished_in_the_session_that_began_it(front: Front, alice: Person) -> None:
    await alice.log_in()
    page = await alice.browser.get("/enroll")
    begun = await alice.browser.post("/enroll/begin", data=form_of(page, "/enroll/begin") | {"label": "x"})
    bob = Person(front, ("acme", "bob"))
    await bob.log_in()
    form = form_of(begun, "/enroll") | {"new_client_data_json": "AAAA", "attestation_object": "AAAA"}
    assert (await bob.browser.post("/enroll", data=form)).status_code == 403
    for name in ("new_client_data_json", "attestation_object"):
        assert (await alice.browser.post("/enroll", data=form | {name: "A" * 90_000})).status_code == 400


# --- the account ---


async def test_removing_a_passkey_asks_first_and_is_for_ones_own(front: Front, alice: Person) -> None:
    bob = Person(front, ("acme", "bob"))
    await alice.log_in()
    rows = {a.signer: a.row.authenticator_id for a in front.sam.authenticators.values()}
    assert (await alice.browser.get(f"/account/remove/{rows['acme', 'bob']}")).status_code == 404
    page = await alice.browser.get(f"/account/remove/{rows['acme', 'alice']}")
    assert "your last one" in page.text
    action = f"/account/remove/{rows['acme', 'alice']}"
    crossed = form_of(page, action)
    assert (await alice.browser.post(f"/account/remove/{rows['acme', 'bob']}", data=crossed)).status_code == 403
    assert (await alice.browser.post(action, data=form_of(page, action))).status_code == 303
    assert (await alice.log_in()).status_code == 403
    assert (await bob.log_in()).status_code == 303
