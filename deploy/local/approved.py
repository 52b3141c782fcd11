"""The second act of the demo: a signer approves on the page with a passkey, and exactly that is signed, once."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path

from deploy.local.approval import ApprovalClient, Approved, PageAuthorization
from deploy.local.browser import PasskeyFile, browser
from deploy.local.document import write_document
from deploy.local.enrollment import APPROVED_CREDENTIAL, Enrollment
from deploy.local.landing import Landing, landing
from deploy.local.partner import get_token, sign_pdf_by
from deploy.local.progress import Progress
from deploy.local.signer import Signer
from deploy.local.stack import Stack

LANGUAGES = ("ja", "en")
LABEL = "An agreement about ten ink stones"


async def sign(stack: Stack, progress: Progress, *, pictures: Path) -> bytes:
    """The signed page. The approval page is left in `pictures`, which has a place for the language: `…-{}.png`."""
    enrollment = Enrollment(stack)
    passkey = PasskeyFile(enrollment.passkey_file, stack.rooms.account)
    is_enrolled = bool(passkey.read())
    with landing(stack.ports["demo partner"]) as back:
        client = ApprovalClient(stack.rooms.authentication_url, enrollment.page_client(), back.url)
        async with browser() as page, passkey.in_hand(page) as authenticator:
            signer = Signer(page, authenticator)
            if not is_enrolled:
                with progress.step("a ticket from the operator; the signer makes a passkey in her browser"):
                    await signer.enroll(await asyncio.to_thread(enrollment.ticket), label="Demonstration")
            with progress.step("pyHanko asks for a hash; the signer reads, approves; the token signs it, once"):
                return await sign_by(client, signer, back, stack.rooms.gateway_url, pictures)


async def sign_by(client: ApprovalClient, signer: Signer, back: Landing, gateway_url: str, pictures: Path) -> bytes:
    """A PDF, signed by pyHanko's CSC client; for the hash it asks about, the signer is sent to the page."""

    async def approve(hashes: list[str]) -> Approved:
        documents = [(LABEL, digest) for digest in hashes]
        asked = await asyncio.to_thread(client.ask, APPROVED_CREDENTIAL, documents)
        await signer.open(asked.url)
        for lang in LANGUAGES:
            await signer.photograph(Path(str(pictures).format(lang)), lang=lang)
        await signer.approve()
        came_back = await asyncio.to_thread(back.came)
        return await asyncio.to_thread(client.redeem, asked, came_back)

    return await sign_pdf_by(
        lambda _session, info, credential: PageAuthorization(info, credential, approve),
        write_document(now=datetime.now(UTC)),
        gateway_url=gateway_url,
        # Of the same client: an authorization is good for the one that asked for it.
        token=await asyncio.to_thread(get_token, client.issuer, client.client),
        credential_id=APPROVED_CREDENTIAL,
    )
