"""Chromium with a virtual authenticator, and a SAM that verifies what it makes with py_webauthn."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import webauthn
from playwright.async_api import Browser, CDPSession, Page, async_playwright
from webauthn.helpers.exceptions import WebAuthnException
from webauthn.helpers.structs import AuthenticationCredential, AuthenticatorAssertionResponse

from shared.contracts.approval import AddAuthenticator, PasskeyAssertion
from shared.errors import Code, RakkanError
from tests.support.authentication import Clock
from tests.support.signers import Authenticator, FakeSAM, b64

CHROMIUM = Path("/usr/bin/chromium")
_SWITCHES = ["--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
             "--disable-component-update", "--disable-sync"]  # fmt: skip
_SHIFTS = """
    window.shifted = 0;
    new PerformanceObserver((list) => {
        for (const entry of list.getEntries()) {
            if (entry.hadRecentInput) continue;
            window.shifted += entry.value;
            window.movers = entry.sources.map((source) => source.node?.outerHTML?.slice(0, 200));
        }
    }).observe({ type: "layout-shift", buffered: true });
"""


class CheckingSAM(FakeSAM):
    """The fake SAM with the checks of a real one: keys, signatures, origin, user verification."""

    def __init__(self, clock: Clock, origin: str) -> None:
        super().__init__(clock)
        self.origin = origin
        self.rp_id = "localhost"

    def check(self, authenticator: Authenticator, given: PasskeyAssertion, challenge: bytes) -> None:
        credential = AuthenticationCredential(
            id=b64(given.credential_id),
            raw_id=given.credential_id,
            response=AuthenticatorAssertionResponse(
                client_data_json=given.client_data_json,
                authenticator_data=given.authenticator_data,
                signature=given.signature,
                user_handle=given.user_handle,
            ),
        )
        try:
            webauthn.verify_authentication_response(
                credential=credential,
                expected_challenge=challenge,
                expected_rp_id=self.rp_id,
                expected_origin=self.origin,
                credential_public_key=authenticator.key,
                credential_current_sign_count=0,
                require_user_verification=True,
            )
        except WebAuthnException as fault:
            raise RakkanError(Code.EVIDENCE_REFUSED, str(fault)) from None

    def read_new(self, request: AddAuthenticator, challenge: bytes) -> tuple[bytes, Any]:
        verified = webauthn.verify_registration_response(
            credential={
                "id": "",
                "rawId": "",
                "type": "public-key",
                "response": {
                    "clientDataJSON": b64(request.client_data_json),
                    "attestationObject": b64(request.attestation_object),
                },
            }
            | _ids(request),
            expected_challenge=challenge,
            expected_rp_id=self.rp_id,
            expected_origin=self.origin,
            require_user_verification=True,
        )
        return verified.credential_id, verified.credential_public_key


def _ids(request: AddAuthenticator) -> dict[str, str]:
    """The contract carries the id inside the attestation object alone."""
    data = webauthn.helpers.parse_attestation_object(request.attestation_object).auth_data
    if data.attested_credential_data is None:
        raise RakkanError(Code.EVIDENCE_REFUSED)
    text = b64(data.attested_credential_data.credential_id)
    return {"id": text, "rawId": text}


@dataclass
class Window:
    """A page in a browser of its own, with what it complained about."""

    page: Page
    shots: Path
    name: str
    complaints: list[str] = field(default_factory=list)
    devtools: CDPSession | None = None
    authenticator_id: str = ""

    async def add_authenticator(self, transport: str = "internal") -> None:
        if self.devtools is None:
            self.devtools = await self.page.context.new_cdp_session(self.page)
            await self.devtools.send("WebAuthn.enable")
        options = {
            "protocol": "ctap2",
            "transport": transport,
            "hasResidentKey": True,
            "hasUserVerification": True,
            "isUserVerified": True,
            "automaticPresenceSimulation": True,
        }
        added = await self.devtools.send("WebAuthn.addVirtualAuthenticator", {"options": options})
        self.authenticator_id = str(added["authenticatorId"])

    async def change_authenticator(self, transport: str) -> None:
        """Put away the one there is, and take another."""
        if self.devtools is not None:
            await self.devtools.send("WebAuthn.removeVirtualAuthenticator", {"authenticatorId": self.authenticator_id})
        await self.add_authenticator(transport)

    async def shoot(self, what: str) -> None:
        """A picture of the whole page; it must not be wider than the screen, nor have moved while it came up."""
        width = await self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert width <= 0, f"{self.name} {what}: {width} px too wide"
        moved = await self.page.evaluate("window.shifted && window.movers")
        assert not moved, f"{self.name} {what}: {moved}"
        await self.page.screenshot(path=self.shots / f"{self.name}-{what}.png", full_page=True)


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    # Its sandbox needs a user that is not root.
    switches = [*_SWITCHES, "--no-sandbox"] if os.geteuid() == 0 else _SWITCHES
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=switches)
        yield browser
        await browser.close()


@asynccontextmanager
async def window(
    browser: Browser, *, name: str, shots: Path, locale: str, width: int, with_passkeys: bool = True, **more: Any
) -> AsyncIterator[Window]:
    context = await browser.new_context(locale=locale, viewport={"width": width, "height": 800}, **more)
    page = await context.new_page()
    opened = Window(page, shots, name)
    page.on("console", lambda line: opened.complaints.append(line.text) if line.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: opened.complaints.append(str(error)))
    if more.get("java_script_enabled", True):
        await page.add_init_script(_SHIFTS)
    if with_passkeys:
        await opened.add_authenticator()
    yield opened
    await context.close()
