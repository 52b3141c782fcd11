"""A partner, a signer at her browser and the whole suite between them: what the tests of approvals start from."""

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from deploy.local.approval import ApprovalClient, Approved, Asked
from deploy.local.browser import PasskeyFile, browser
from deploy.local.enrollment import APPROVED_CREDENTIAL, Enrollment
from deploy.local.landing import Landing, landing
from deploy.local.partner import get_token
from deploy.local.progress import Progress
from deploy.local.signer import Signer
from deploy.local.stack import Stack

SHA256 = "2.16.840.1.101.3.4.2.1"
ECDSA_SHA256 = "1.2.840.10045.4.3.2"


def digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


@dataclass(frozen=True)
class Scene:
    stack: Stack
    enrollment: Enrollment
    client: ApprovalClient
    signer: Signer
    back: Landing
    other_back: str
    """Another address that the client may send signers back to; nobody listens there."""

    async def asked(self, *hashes: str, **more: Any) -> Asked:
        documents = [(f"Document {number}", hash_) for number, hash_ in enumerate(hashes, start=1)]
        return await asyncio.to_thread(self.client.ask, APPROVED_CREDENTIAL, documents, **more)

    async def came(self) -> str:
        return await asyncio.to_thread(self.back.came)

    async def code(self, *hashes: str) -> tuple[Asked, str]:
        """Approved: what was asked, and the address with the code."""
        asked = await self.asked(*hashes)
        await self.signer.open(asked.url)
        await self.signer.approve()
        return asked, await self.came()

    async def approved(self, *hashes: str) -> Approved:
        asked, came_back = await self.code(*hashes)
        return await asyncio.to_thread(self.client.redeem, asked, came_back)

    async def service_token(self) -> str:
        return await asyncio.to_thread(get_token, self.client.issuer, self.client.client)

    async def sign(self, token: str, hashes: Sequence[str], **changes: Any) -> httpx.Response:
        """`signHash` of v2 with the token as Bearer and no SAD."""
        body = {
            "credentialID": APPROVED_CREDENTIAL,
            "hashes": list(hashes),
            "hashAlgorithmOID": SHA256,
            "signAlgo": ECDSA_SHA256,
        }
        return await self.call("v2/signatures/signHash", body | changes, token)

    async def call(self, path: str, body: dict[str, Any], token: str) -> httpx.Response:
        async with httpx.AsyncClient(timeout=30) as http:
            headers = {"Authorization": f"Bearer {token}"}
            return await http.post(f"{self.stack.rooms.gateway_url}/csc/{path}", json=body, headers=headers)


@asynccontextmanager
async def scene(stack: Stack) -> AsyncIterator[Scene]:
    """Everything enrolled, once for a stack; a fresh browser with the signer's passkey."""
    enrollment = Enrollment(stack)
    with landing(stack.ports["demo partner"]) as back:
        other_back = f"http://localhost:{stack.ports['other partner']}/back"
        await asyncio.to_thread(_enroll, enrollment, (back.url, other_back))
        client = ApprovalClient(stack.rooms.authentication_url, enrollment.page_client(), back.url)
        passkey = PasskeyFile(enrollment.passkey_file, stack.rooms.account)
        is_enrolled = bool(passkey.read())
        async with browser() as page, passkey.in_hand(page) as authenticator:
            signer = Signer(page, authenticator)
            if not is_enrolled:
                await signer.enroll(await asyncio.to_thread(enrollment.ticket), label="Test")
            yield Scene(stack, enrollment, client, signer, back, other_back)


def _enroll(enrollment: Enrollment, redirect_uris: tuple[str, ...]) -> None:
    if not enrollment.is_done():
        enrollment.make(Progress())
    if not enrollment.is_done_for_the_page():
        enrollment.make_for_the_page(redirect_uris, Progress())
