"""The pages in Debian's Chromium with a virtual authenticator: enrol, log in, approve, refuse, in both languages.

Pictures are left in the folder that RAKKAN_TEST_SCREENSHOTS names.
"""

import hashlib
import os
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from fastapi import FastAPI
from playwright.async_api import Browser, expect
from starlette.responses import HTMLResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from shared.contracts.approval import Document
from shared.http import HTTPDoor, serve_http
from tests.support.authentication import Clock
from tests.support.signers import TICKET, Front
from tests.support.virtual import CheckingSAM, Window, chromium, window


class NowClock(Clock):
    """The browser's clock does not stand still, so this one does not either."""

    def now(self) -> datetime:
        return datetime.now(UTC)


@dataclass
class Place:
    """The pages really served, and a partner's site to come back to."""

    front: Front
    sam: CheckingSAM
    origin: str
    partner: str
    shots: Path

    def ask(self, request_id: str, **changed: object) -> str:
        self.front.requests.add(request_id, redirect_uri=f"{self.partner}/callback?x=1", **changed)
        return f"{self.origin}/approve/{request_id}"


@pytest.fixture(scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as browser:
        yield browser


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    shots = Path(os.environ.get("RAKKAN_TEST_SCREENSHOTS", tmp_path))
    partner = FastAPI()
    partner.add_api_route("/callback", lambda: HTMLResponse("<title>back</title>"), methods=["GET"])
    partner.add_api_route("/favicon.ico", lambda: HTMLResponse(""), methods=["GET"])
    apps: list[ASGIApp] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await apps[0](scope, receive, send)

    async with serve_http(app, HTTPDoor(leave_s=0)) as port, serve_http(partner, HTTPDoor(leave_s=0)) as partner_port:
        origin = f"http://localhost:{port}"
        key = tmp_path / "key"
        key.write_text("A" * 43 + "=")
        front = Front(clock=NowClock(), origin=origin, secrets_key_file=key)
        sam = CheckingSAM(front.clock, origin)
        apps.append(front.make_app(sam))
        # Another host than ours, so that the way back is to another site.
        yield Place(front, sam, origin, f"http://127.0.0.1:{partner_port}", shots)


async def enrol(place: Place, here: Window) -> None:
    page = here.page
    await page.goto(f"{place.origin}/enroll?ticket={TICKET}")
    await here.shoot("enroll")
    await page.locator("#label").fill("Phone")
    await page.locator("main button").click()
    await here.shoot("enroll-key")
    await page.locator("form[data-passkey] button").click()
    await page.wait_for_url("**/enroll")
    await expect(page.locator("h1")).to_have_text(re.compile("added|登録しました"))
    await here.shoot("enrolled")


async def log_in(here: Window) -> None:
    await here.page.locator("form[data-passkey] button").click()


@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("locale", ["ja-JP", "en-US"])
async def test_a_signer_enrols_logs_in_approves_and_refuses(
    place: Place, browser: Browser, locale: str, width: int
) -> None:
    name = f"{locale[:2]}-{width}"
    async with window(browser, name=name, shots=place.shots, locale=locale, width=width) as here:
        page = here.page
        await enrol(place, here)
        await page.goto(place.ask("first", description="見積書への署名をお願いします。" if locale == "ja-JP" else ""))
        await page.wait_for_url("**/login?**")
        await here.shoot("login")
        await log_in(here)
        await page.wait_for_url("**/approve/first")
        await here.shoot("approve")
        (context,) = place.sam.contexts.values()
        await expect(page.locator("output")).to_have_text(context.opened.reference_code)
        await page.locator("summary").first.click()
        await expect(page.locator("details .hash").nth(1)).to_be_visible()
        await here.page.locator("#approve button").click()
        await page.wait_for_url(f"{place.partner}/callback?x=1&code=**")
        assert place.front.requests.outcomes["first"]["outcome"] == "granted"

        await page.goto(place.ask("second"))
        await page.wait_for_url("**/approve/second")
        await page.locator("form[action$=refuse] button").click()
        await page.wait_for_url(f"{place.partner}/callback?x=1&error=access_denied**")
        assert place.front.requests.outcomes["second"]["outcome"] == "denied"

        await page.goto(f"{place.origin}/account")
        await here.shoot("account")
        await page.goto(f"{place.origin}/account/password")
        await expect(page.locator(".qr svg")).to_be_visible()
        await here.shoot("password")
        await page.goto(place.ask("third", scope="service", documents=(), hash=None, credential_id=None))
        await here.shoot("consent")
        await page.locator("main form button").first.click()
        await page.wait_for_url(f"{place.partner}/callback?x=1&code=**")
        assert here.complaints == []


async def test_the_pages_for_the_rest_of_the_way(place: Place, browser: Browser) -> None:
    async with window(browser, name="ja-360-more", shots=place.shots, locale="ja-JP", width=360) as here:
        page = here.page
        await enrol(place, here)
        await page.goto(f"{place.origin}/account/password")
        await log_in(here)
        await page.wait_for_url("**/account/password")
        await here.shoot("password")
        await page.goto(f"{place.origin}/account")
        await page.locator("a[href^='/account/remove/']").click()
        await here.shoot("remove")
        labels = ("請求書\u202efdp.exe", "عقد العمل.pdf", "N" * 255, "", "<script>alert(1)</script>", "a\nb", "g", "h")
        documents = tuple(
            Document(digest=hashlib.sha512(str(n).encode()).digest(), label=x) for n, x in enumerate(labels)
        )
        await page.goto(place.ask("odd", documents=documents, client_name="X" * 255))
        await here.shoot("odd-labels")
        await page.goto(f"{place.origin}/approve/unknown")
        await here.shoot("message")
        assert not [line for line in here.complaints if "404" not in line]


async def test_a_signer_adds_a_second_passkey_with_the_first(place: Place, browser: Browser) -> None:
    async with window(browser, name="en-two", shots=place.shots, locale="en-US", width=360) as here:
        await enrol(place, here)
        await here.page.goto(f"{place.origin}/login")
        await log_in(here)
        await here.page.wait_for_url("**/account")
        await here.page.locator("a[href='/enroll']").click()
        await here.page.locator("#label").fill("Laptop")
        await here.page.locator("main button").click()
        button = here.page.locator("form[data-passkey] button")
        await button.click()
        # The first one approves, and then refuses to make a second key beside its own: another device is needed.
        await expect(here.page.locator("[role=alert]")).to_contain_text("try again")
        await here.change_authenticator("usb")
        await button.click()
        await expect(here.page.locator(".notice")).to_contain_text("If it was not you")
        await here.shoot("cooling-off")
        assert len(place.sam.authenticators) == 2


async def test_keys_alone_are_enough(place: Place, browser: Browser) -> None:
    async with window(browser, name="keys", shots=place.shots, locale="en-US", width=1280) as here:
        page = here.page
        await enrol(place, here)
        await page.goto(place.ask("keys"))
        await page.wait_for_url("**/login?**")
        await page.locator("form[data-passkey] button").focus()
        await page.keyboard.press("Enter")
        await page.wait_for_url("**/approve/keys")
        reached = []
        for _ in range(20):
            await page.keyboard.press("Tab")
            reached.append(await page.evaluate("document.activeElement.textContent.trim()"))
            if reached[-1].startswith("Approve and sign"):
                break
        assert await page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
        await here.shoot("focus")
        await page.keyboard.press("Enter")
        await page.wait_for_url(f"{place.partner}/callback?x=1&code=**")


async def test_a_passkey_that_is_not_there_leaves_a_word_and_another_try(place: Place, browser: Browser) -> None:
    async with window(browser, name="none", shots=place.shots, locale="ja-JP", width=360) as here:
        await here.page.goto(f"{place.origin}/login")
        await log_in(here)
        await expect(here.page.locator("[role=alert]").first).to_contain_text("パスキーが使われませんでした")
        await expect(here.page.locator("form[data-passkey] button")).to_be_enabled()
        await here.shoot("failed")


async def test_the_countdown_ends_the_page(place: Place, browser: Browser) -> None:
    async with window(browser, name="over", shots=place.shots, locale="ja-JP", width=360) as here:
        await enrol(place, here)
        await here.page.clock.install()
        await here.page.goto(place.ask("late"))
        await log_in(here)
        await here.page.wait_for_url("**/approve/late")
        await expect(here.page.locator("[data-clock]")).to_have_text(re.compile(r"^[45]:\d\d$"))
        await here.page.clock.fast_forward(301_000)
        await expect(here.page.locator("#approve button")).to_be_disabled()
        await expect(here.page.locator("form[action$=refuse] button")).to_be_enabled()
        await here.shoot("over")


async def test_without_script_everything_is_shown_and_no_is_taken(place: Place, browser: Browser) -> None:
    async with window(
        browser, name="no-script", shots=place.shots, locale="ja-JP", width=360, with_passkeys=False,
        java_script_enabled=False,
    ) as here:  # fmt: skip
        await here.page.goto(f"{place.origin}/login")
        await expect(here.page.locator("noscript p")).to_contain_text("JavaScript")
        await log_in(here)
        await expect(here.page.locator("[role=alert]").first).to_contain_text("JavaScript")
        await here.page.screenshot(path=place.shots / "no-script.png", full_page=True)


@pytest.mark.parametrize("locale", ["ja-JP", "en-US"])
async def test_who_must_wait_to_log_in_is_told_that_nothing_is_locked(
    place: Place, browser: Browser, locale: str
) -> None:
    async with window(browser, name=f"busy-{locale[:2]}", shots=place.shots, locale=locale, width=360) as here:
        page = here.page
        await page.goto(f"{place.origin}/login")
        await page.route("**/login/begin", lambda route: route.fulfill(status=429))
        await log_in(here)
        await expect(page.locator("[role=alert]")).to_have_text(re.compile("is not locked|ロックされていません"))
        await expect(page.locator("form[data-passkey] button")).to_be_enabled()
        await here.shoot("busy")
