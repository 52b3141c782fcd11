"""The demo signer's browser: Chromium without a window, and a passkey that lives in a file. Knows no page's markup.

The authenticator is Chromium's own virtual one (DevTools, domain WebAuthn): it makes and uses real WebAuthn keys.
"""

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from playwright.async_api import CDPSession, Page, async_playwright

from deploy.local.account import Account
from deploy.local.chromium import find_chromium

_AUTHENTICATOR = {
    "protocol": "ctap2",
    "transport": "internal",
    "hasResidentKey": True,
    "hasUserVerification": True,
    "isUserVerified": True,
    "automaticPresenceSimulation": True,
}


class Authenticator:
    """A virtual authenticator in one page, and what it holds."""

    def __init__(self, session: CDPSession, authenticator_id: str) -> None:
        self._session = session
        self._id = {"authenticatorId": authenticator_id}

    @classmethod
    async def made(cls, page: Page) -> "Authenticator":
        session = await page.context.new_cdp_session(page)
        await session.send("WebAuthn.enable")
        made = await session.send("WebAuthn.addVirtualAuthenticator", {"options": _AUTHENTICATOR})
        return cls(session, made["authenticatorId"])

    async def credentials(self) -> list[dict[str, Any]]:
        held: list[dict[str, Any]] = (await self._session.send("WebAuthn.getCredentials", self._id))["credentials"]
        return held

    async def take(self, credentials: list[dict[str, Any]]) -> None:
        for credential in credentials:
            await self._session.send("WebAuthn.addCredential", {**self._id, "credential": credential})

    async def verify_user(self, *, succeeds: bool) -> None:
        """Whether the person is recognized: false is a stranger who holds the device."""
        await self._session.send("WebAuthn.setUserVerified", {**self._id, "isUserVerified": succeeds})


@asynccontextmanager
async def browser(*, lang: str = "en", width: int = 412, height: int = 915) -> AsyncIterator[Page]:
    """A fresh browser with nothing in it, as wide as a phone."""
    program = find_chromium()
    if program is None:
        raise FileNotFoundError("chromium")
    # Chromium's sandbox does not start as root; only pages of our own stack are shown here.
    arguments = ["--no-sandbox"] if os.getuid() == 0 else []
    async with async_playwright() as playwright:
        chromium = await playwright.chromium.launch(executable_path=program, args=arguments)
        try:
            context = await chromium.new_context(locale=lang, viewport={"width": width, "height": height})
            context.set_default_timeout(15_000)
            yield await context.new_page()
        finally:
            await chromium.close()


class PasskeyFile:
    """Where the demo's signer keeps her passkey from run to run, its use counter with it."""

    def __init__(self, file: Path, account: Account) -> None:
        self._file = file
        self._account = account

    def read(self) -> list[dict[str, Any]]:
        held: list[dict[str, Any]] = json.loads(self._file.read_text()) if self._file.exists() else []
        return held

    def write(self, held: list[dict[str, Any]]) -> None:
        self._account.write(self._file, json.dumps(held) + "\n")

    @asynccontextmanager
    async def in_hand(self, page: Page) -> AsyncIterator[Authenticator]:
        """An authenticator that holds what the file holds, and the file what it holds afterwards."""
        authenticator = await Authenticator.made(page)
        await authenticator.take(self.read())
        try:
            yield authenticator
        finally:
            self.write(await authenticator.credentials())
