"""A signer approves in a real browser, with a real WebAuthn key, on the whole suite; and what must not work then."""

import asyncio
import os
import subprocess
import sys
import urllib.parse
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from deploy.local import approved
from deploy.local.browser import browser
from deploy.local.document import forge
from deploy.local.enrollment import APPROVED_CREDENTIAL, CREDENTIAL
from deploy.local.program import StackError
from deploy.local.stack import Stack
from deploy.local.validators import validate
from shared.tokens import AccessToken, write_token
from shared.trust import Purpose, SigningKey
from tests.support.approving import ECDSA_SHA256, SHA256, Scene, digest, scene
from tests.support.waiting import until

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "approve.py"


LOADED = """() => performance.getEntries()
    .filter(entry => ["navigation", "resource"].includes(entry.entryType))
    .map(entry => ({name: entry.name, bytes: entry.encodedBodySize}))"""
SHIFTED = """() => new Promise(done => {
    let shifted = 0;
    new PerformanceObserver(list => list.getEntries().forEach(entry => { shifted += entry.value; }))
        .observe({type: "layout-shift", buffered: true});
    setTimeout(() => done(shifted), 500);
})"""


@pytest.fixture(scope="module")
async def there(suite: Stack) -> AsyncIterator[Scene]:
    async with scene(suite) as there:
        yield there


def refusal(answer: httpx.Response) -> tuple[int, str, str]:
    body = answer.json()
    return answer.status_code, body["error"], body.get("error_description", "")


async def test_an_added_passkey_comes_to_authentication_as_a_notice(there: Scene) -> None:
    """Over the broker, from the SAM's outbox. What is sent of it by mail, where the settings name a server, is tried
    in tests/rooms/test_notices.py."""
    logs = there.stack.folder / "logs"

    async def told() -> bool:
        return any("notice not sent" in log.read_text(errors="replace") for log in logs.glob("authentication*.log"))

    await until(told, within_s=20)


# --- the way ---------------------------------------------------------------------------------------------------------


async def test_an_approved_page_is_accepted_by_three_validators(there: Scene, tmp_path: Path) -> None:
    suite = there.stack
    pictures = tmp_path / "approval-{}.png"
    document = await approved.sign_by(there.client, there.signer, there.back, suite.rooms.gateway_url, pictures)
    anchors = {"anchors_file": suite.rooms.anchors_file, "tsa_anchors_file": suite.rooms.tsa_anchors_file}
    verdicts = await asyncio.to_thread(validate, document, **anchors)
    assert [verdict.words for verdict in verdicts if not verdict.accepted] == []
    forged = await asyncio.to_thread(validate, forge(document), **anchors)
    assert not any(verdict.accepted for verdict in forged)
    for lang in ("ja", "en"):
        assert (tmp_path / f"approval-{lang}.png").read_bytes().startswith(b"\x89PNG")


async def test_the_page_shows_what_will_be_signed_in_both_languages(there: Scene) -> None:
    asked = await there.asked(digest("a contract"))
    await there.signer.open(asked.url)
    page = there.signer.page
    for lang in ("ja", "en"):
        await page.goto(f"{page.url.partition('?')[0]}?lang={lang}")
        assert await page.locator("html").get_attribute("lang") == lang
        text = await page.locator("main").inner_text()
        for shown in ("Document 1", "Demo program", "Hanako Yamada"):
            assert shown in text
    await there.signer.refuse()
    await there.came()


async def test_the_page_weighs_little_loads_nothing_from_elsewhere_and_does_not_move(there: Scene) -> None:
    asked = await there.asked(digest("a contract"))
    await there.signer.open(asked.url)
    page = there.signer.page
    await page.reload()
    loaded = await page.evaluate(LOADED)
    assert sum(entry["bytes"] for entry in loaded) < 60_000, loaded
    assert all(entry["name"].startswith(there.client.issuer + "/") for entry in loaded), loaded
    assert await page.evaluate(SHIFTED) == 0
    await there.signer.refuse()
    await there.came()


async def test_the_token_signs_what_was_approved_and_a_repeat_gets_the_recorded_values(there: Scene) -> None:
    hashes = [digest("one"), digest("two")]
    token = (await there.approved(*hashes)).token
    first = await there.sign(token, hashes)
    assert first.status_code == 200, first.text
    assert len(first.json()["signatures"]) == 2
    assert (await there.sign(token, hashes)).json() == first.json()


async def test_v1_takes_the_token_as_sad(there: Scene) -> None:
    token = (await there.approved(digest("v1"))).token
    body = {"credentialID": APPROVED_CREDENTIAL, "SAD": token, "hash": [digest("v1")], "signAlgo": ECDSA_SHA256}
    answer = await there.call("v1/signatures/signHash", body, await there.service_token())
    assert answer.status_code == 200, answer.text


async def test_a_signer_who_consents_gives_a_token_that_lists_her_own_credentials(there: Scene) -> None:
    asked = await asyncio.to_thread(there.client.ask_for_the_service)
    await there.signer.open(asked.url)
    await there.signer.consent()
    token = (await asyncio.to_thread(there.client.redeem, asked, await there.came())).token
    listed = await there.call("v2/credentials/list", {"credentialInfo": True, "authInfo": True}, token)
    modes = {found["credentialID"]: found["auth"]["mode"] for found in listed.json()["credentialInfos"]}
    assert modes == {CREDENTIAL: "explicit", APPROVED_CREDENTIAL: "oauth2code"}
    refused = await there.call("v2/credentials/list", {"userID": "hanako"}, token)
    assert refusal(refused) == (400, "invalid_request", "userID parameter MUST be null")
    answer = await there.sign(token, [digest("no approval")])
    assert refusal(answer)[2] == "Missing (or invalid type) string parameter SAD"


async def test_the_example_of_the_partners_page_runs(there: Scene, tmp_path: Path) -> None:
    file = tmp_path / "contract.pdf"
    file.write_bytes(b"a contract")
    rooms = there.stack.rooms
    argv = [sys.executable, str(EXAMPLE), rooms.authentication_url, rooms.gateway_url]
    argv += [there.client.client.client_id, APPROVED_CREDENTIAL, str(file)]
    environment = {**os.environ, "CLIENT_SECRET": there.client.client.secret, "BACK": there.other_back}
    program = await asyncio.create_subprocess_exec(*argv, env=environment, stdout=subprocess.PIPE)
    assert program.stdout is not None
    said = (await asyncio.wait_for(program.stdout.readline(), 20)).decode()
    compared = (await asyncio.wait_for(program.stdout.readline(), 20)).decode()
    await there.signer.open(said.rpartition(" ")[2].strip())
    assert await there.signer.reference_code() == compared.rpartition(" ")[2].strip()
    await there.signer.approve()
    signature = (await asyncio.wait_for(program.stdout.read(), 20)).decode().strip()
    assert await program.wait() == 0
    assert signature.startswith("ME")


# --- what must not work ----------------------------------------------------------------------------------------------


async def test_other_hashes_than_the_approved_ones_are_not_signed(there: Scene) -> None:
    hashes = [digest("one"), digest("two")]
    token = (await there.approved(*hashes)).token
    for tried in (
        [digest("other")],
        [digest("one"), digest("other")],
        [*hashes, digest("other")],
        [digest("one"), digest("one")],
    ):
        answer = await there.sign(token, tried)
        assert refusal(answer) == (400, "invalid_request", "Hash is not authorized by the SAD")
    assert (await there.sign(token, hashes)).status_code == 200


async def test_a_spent_token_signs_nothing_more(there: Scene) -> None:
    token = (await there.approved(digest("once"))).token
    assert (await there.sign(token, [digest("once")])).status_code == 200
    again = await there.sign(token, [digest("once")], signAlgo="1.2.840.10045.4.3.3", hashAlgorithmOID=SHA256)
    assert again.status_code == 400
    more = await there.sign(token, [digest("once"), digest("once")])
    assert more.status_code == 400


async def test_the_token_is_for_one_credential(there: Scene) -> None:
    token = (await there.approved(digest("one"))).token
    answer = await there.sign(token, [digest("one")], credentialID=CREDENTIAL)
    assert refusal(answer) == (400, "invalid_request", "Invalid parameter credentialID")


async def test_another_client_cannot_use_the_token_as_sad(there: Scene) -> None:
    token = (await there.approved(digest("one"))).token
    body = {"credentialID": APPROVED_CREDENTIAL, "SAD": token, "hash": [digest("one")], "signAlgo": ECDSA_SHA256}
    others = await asyncio.to_thread(there.enrollment.token)
    assert refusal(await there.call("v1/signatures/signHash", body, others))[2] == "Invalid parameter SAD"


async def test_no_pin_authorizes_a_credential_for_the_page(there: Scene) -> None:
    body = {
        "credentialID": APPROVED_CREDENTIAL,
        "numSignatures": 1,
        "hash": [digest("one")],
        "PIN": there.enrollment.pin,
    }
    for version in ("v1", "v2"):
        answer = await there.call(f"{version}/credentials/authorize", body, await there.service_token())
        assert "oauth2/authorize only" in refusal(answer)[2]


async def test_a_refusal_of_the_signer_comes_back_as_access_denied(there: Scene) -> None:
    asked = await there.asked(digest("no"))
    await there.signer.open(asked.url)
    await there.signer.refuse()
    with pytest.raises(StackError, match="access_denied"):
        there.client.redeem(asked, await there.came())


async def test_a_code_is_good_once_and_its_tokens_die_when_it_comes_again(there: Scene) -> None:
    asked, came_back = await there.code(digest("once"))
    token = there.client.redeem(asked, came_back).token
    with pytest.raises(StackError, match="invalid_grant"):
        there.client.redeem(asked, came_back)
    assert (await there.sign(token, [digest("once")])).status_code == 401


async def test_an_approval_page_belongs_to_the_browser_that_saw_it_first(there: Scene) -> None:
    asked = await there.asked(digest("mine"))
    await there.signer.open(asked.url)
    async with browser() as stranger:
        answer = await stranger.goto(there.signer.page.url)
        assert answer is not None
        assert answer.status == 403
    await there.signer.refuse()
    await there.came()


async def test_a_person_who_is_not_recognized_approves_nothing(there: Scene) -> None:
    asked = await there.asked(digest("a stranger holds the phone"))
    await there.signer.open(asked.url)
    await there.signer.authenticator.verify_user(succeeds=False)
    try:
        await there.signer.approve()
        await there.signer.page.locator("p.says:not(:empty)").wait_for()
        assert "/approve/" in there.signer.page.url
    finally:
        await there.signer.authenticator.verify_user(succeeds=True)
    await there.signer.refuse()
    assert "error=access_denied" in await there.came()


@pytest.mark.parametrize("what", ["expired", "of no approval"])
async def test_authentication_alone_makes_no_token_that_signs(there: Scene, what: str) -> None:
    """With its own signing key: an authorization is made by the SAM only, from evidence."""
    now = datetime.now(UTC)
    token = write_token(
        AccessToken(
            token_id="forged",
            issuer=there.client.issuer,
            client_id=there.client.client.client_id,
            tenant_id="demo",
            scope="credential",
            issued_at=now - timedelta(minutes=10),
            expires_at=now + timedelta(minutes=-5 if what == "expired" else 5),
            user_id="hanako",
            credential_id=APPROVED_CREDENTIAL,
            authorization_id="0" * 32,
        ),
        SigningKey.load(there.stack.keys.key_file("authentication", Purpose.TOKENS)),
    )
    answer = await there.sign(token, [digest("forged")])
    assert refusal(answer)[:2] == ((401, "expired_token") if what == "expired" else (400, "invalid_request"))


async def test_a_callback_with_another_state_or_issuer_is_not_redeemed(there: Scene) -> None:
    asked, came_back = await there.code(digest("mixed up"))
    other = await there.asked(digest("other"))
    with pytest.raises(StackError, match="another request"):
        there.client.redeem(other, came_back)
    parts = urllib.parse.urlsplit(came_back)
    answer = dict(urllib.parse.parse_qsl(parts.query)) | {"iss": "https://evil.example"}
    with pytest.raises(StackError, match="of another server"):
        there.client.redeem(asked, parts._replace(query=urllib.parse.urlencode(answer)).geturl())
