"""The demo's signer at her browser: enrolls a passkey, logs in, reads, approves or refuses. Knows only the pages."""

from dataclasses import dataclass
from pathlib import Path

from playwright.async_api import Page

from deploy.local.browser import Authenticator


@dataclass(frozen=True)
class Signer:
    """One person at one browser, an authenticator in hand."""

    page: Page
    authenticator: Authenticator

    async def enroll(self, address: str, *, label: str) -> None:
        """With the address that the registration authority gave her."""
        page = self.page
        await page.goto(address)
        await page.locator("input[name=label]").fill(label)
        await page.locator("main form button").click()
        await page.locator("form[data-passkey] button").click()
        await page.locator("main a[href='/account']").wait_for()

    async def open(self, address: str) -> None:
        """To the approval page, through the log-in when she is not logged in."""
        page = self.page
        await page.goto(address)
        if "/login" in page.url:
            await page.locator("form[data-passkey] button").click()
            await page.wait_for_url("**/approve/**")

    async def photograph(self, file: Path, *, lang: str) -> None:
        """The whole page, in a language."""
        await self.page.goto(f"{self.page.url.partition('?')[0]}?lang={lang}")
        await self.page.screenshot(path=file, full_page=True)

    async def reference_code(self) -> str:
        """What the page shows, for her to compare with the page she came from."""
        return (await self.page.locator("section.reference output").inner_text()).strip()

    async def approve(self) -> None:
        await self.page.locator("#approve button").click()

    async def consent(self) -> None:
        """To a program that wants to use the service for her."""
        await self.page.locator("form[action*='/approve/']:not([action$='/refuse']) button").click()

    async def refuse(self) -> None:
        await self.page.locator("form[action$='/refuse'] button").click()
