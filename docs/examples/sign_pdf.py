"""Signs a PDF with pyHanko's own CSC client: `python sign_pdf.py GATEWAY TOKEN CREDENTIAL PIN in.pdf out.pdf`."""

import asyncio
import sys
from pathlib import Path

import aiohttp
from pyhanko.pdf_utils.incremental_writer import IncrementalPdfFileWriter
from pyhanko.sign import signers
from pyhanko.sign.signers.csc_signer import (
    CSCAuthorizationInfo,
    CSCAuthorizationManager,
    CSCCredentialInfo,
    CSCServiceSessionInfo,
    CSCSigner,
    fetch_certs_in_csc_credential,
)


class PINAuthorization(CSCAuthorizationManager):
    """How this partner's signers authorize: pyHanko leaves that to its user."""

    def __init__(
        self, session: aiohttp.ClientSession, info: CSCServiceSessionInfo, credential: CSCCredentialInfo, pin: str
    ) -> None:
        super().__init__(info, credential)
        self.session, self.pin = session, pin

    async def authorize_signature(self, hash_b64s: list[str]) -> CSCAuthorizationInfo:
        url = self.csc_session_info.endpoint_url("credentials/authorize")
        body = self.format_csc_auth_request(num_signatures=len(hash_b64s), pin=self.pin, hash_b64s=hash_b64s)
        async with self.session.post(url, headers=self.auth_headers, json=body, raise_for_status=True) as answer:
            return self.parse_csc_auth_response(await answer.json())


async def sign(gateway: str, token: str, credential: str, pin: str, source: Path, target: Path) -> None:
    info = CSCServiceSessionInfo(service_url=gateway, credential_id=credential, oauth_token=token, api_ver="v1")
    async with aiohttp.ClientSession() as session:
        described = await fetch_certs_in_csc_credential(session, info)
        signer = CSCSigner(session, PINAuthorization(session, info, described, pin))
        with source.open("rb") as unsigned, target.open("w+b") as signed:
            await signers.async_sign_pdf(
                IncrementalPdfFileWriter(unsigned),
                signers.PdfSignatureMetadata(field_name="Signature", md_algorithm="sha256"),
                signer=signer,
                output=signed,
            )


if __name__ == "__main__":
    gateway, token, credential, pin, source, target = sys.argv[1:]
    asyncio.run(sign(gateway, token, credential, pin, Path(source), Path(target)))
