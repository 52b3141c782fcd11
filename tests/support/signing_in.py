"""A person with a browser and a passkey before the pages, and what a page's forms hold."""

import html
import json
import re
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.support.signers import Front, Passkey

ALICE = ("acme", "alice")


@dataclass
class Person:
    front: Front
    who: tuple[str, str] = ALICE
    address: str = "127.0.0.1"
    passkey: Passkey = field(default_factory=Passkey.new)

    def __post_init__(self) -> None:
        self.front.sam.enrol(self.who, self.passkey)
        self.browser = self.front.browser(self.address)

    async def log_in(self, next_page: str = "/account", *, passkey: Passkey | None = None) -> httpx.Response:
        page = await self.browser.get("/login", params={"next": next_page})
        form = form_of(page, "/login/passkey")
        asked = (await self.browser.post("/login/begin", data=form)).json()
        answer = (passkey or self.passkey).answer(asked)
        return await self.browser.post("/login/passkey", data=form | {"login_id": asked["login_id"]} | answer)

    async def open(self, request_id: str = "req-1") -> httpx.Response:
        return await self.browser.get(f"/approve/{request_id}")

    async def approve(self, page: httpx.Response, **changed: str) -> httpx.Response:
        action = f"/approve/{page.url.path.split('/')[2]}"
        form = form_of(page, action)
        return await self.browser.post(action, data=form | self.passkey.answer(options_of(page)) | changed)


def form_of(page: httpx.Response, action: str) -> dict[str, str]:
    """The hidden fields of the form that goes there."""
    for found, body in re.findall(r'<form[^>]*action="([^"]*)"[^>]*>(.*?)</form>', page.text, re.DOTALL):
        if found == action:
            inputs = re.findall(r'<input type="hidden" name="([^"]*)"(?: value="([^"]*)")?>', body)
            return {name: html.unescape(value) for name, value in inputs}
    raise LookupError(f"no form for {action} on a page of status {page.status_code}")


def options_of(page: httpx.Response, call: str = "get") -> dict[str, Any]:
    """What the page's script calls WebAuthn with."""
    match = re.search(rf'data-{call}="([^"]*)"', page.text)
    if match is None:
        raise LookupError(f"no {call} on a page of status {page.status_code}")
    return dict(json.loads(html.unescape(match[1])))
