"""pyHanko's own CSC client, unmodified, signs PDFs through the door over real HTTP, and its validator accepts them.

The rooms behind the door are fakes that really sign: this is about the words between client and gateway.
"""

from collections.abc import AsyncIterator
from io import BytesIO

import aiohttp
import pytest
from pyhanko.pdf_utils.generic import StreamObject
from pyhanko.pdf_utils.incremental_writer import IncrementalPdfFileWriter
from pyhanko.pdf_utils.reader import PdfFileReader
from pyhanko.pdf_utils.writer import PageObject, PdfFileWriter
from pyhanko.sign import signers
from pyhanko.sign.signers.csc_signer import (
    CSCAuthorizationInfo,
    CSCAuthorizationManager,
    CSCCredentialInfo,
    CSCServiceSessionInfo,
    CSCSigner,
    fetch_certs_in_csc_credential,
)
from pyhanko.sign.validation import async_validate_pdf_signature
from pyhanko_certvalidator import ValidationContext

from shared.algorithms import KeyAlgorithm
from shared.contracts import sam
from shared.http import HTTPDoor, serve_http
from tests.rooms.gateway_fakes import World, certificate_of, credential, opened


class PINManager(CSCAuthorizationManager):
    """Authorizes with a PIN: the one thing pyHanko leaves to its user."""

    def __init__(
        self, session: aiohttp.ClientSession, service: CSCServiceSessionInfo, described: CSCCredentialInfo
    ) -> None:
        super().__init__(service, described)
        self._session = session

    async def authorize_signature(self, hash_b64s: list[str]) -> CSCAuthorizationInfo:
        body = self.format_csc_auth_request(num_signatures=len(hash_b64s), pin="1234", hash_b64s=hash_b64s)
        url = self.csc_session_info.endpoint_url("credentials/authorize")
        async with self._session.post(url, headers=self.auth_headers, json=body, raise_for_status=True) as answer:
            return self.parse_csc_auth_response(await answer.json())


@pytest.fixture
async def door() -> AsyncIterator[tuple[World, str]]:
    async with opened() as world, serve_http(world.app, HTTPDoor(leave_s=0.0)) as port:
        yield world, f"http://127.0.0.1:{port}"


def empty_pdf() -> BytesIO:
    writer, out = PdfFileWriter(), BytesIO()
    writer.insert_page(
        PageObject(contents=writer.add_object(StreamObject(stream_data=b"")), media_box=(0, 0, 300, 300))
    )
    writer.write(out)
    return out


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize(
    ("algorithm", "pss"),
    [(KeyAlgorithm.P256, False), (KeyAlgorithm.RSA2048, False), (KeyAlgorithm.RSA2048, True)],
    ids=["p256", "rsa-pkcs1", "rsa-pss"],
)
async def test_pyhanko_signs_a_pdf(
    door: tuple[World, str],
    version: str,
    algorithm: KeyAlgorithm,
    pss: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    world, url = door
    certificate = certificate_of(algorithm)
    world.rooms.credentials["signer"] = credential("signer", algorithm, certificates=(certificate,))
    service = CSCServiceSessionInfo(service_url=url, credential_id="signer", oauth_token=world.token(), api_ver=version)
    async with aiohttp.ClientSession() as session:
        described = await fetch_certs_in_csc_credential(session, service)
        signer = CSCSigner(session, PINManager(session, service, described), prefer_pss=pss)
        signed = await signers.async_sign_pdf(
            IncrementalPdfFileWriter(empty_pdf()),
            signers.PdfSignatureMetadata(field_name="Signature", md_algorithm="sha256"),
            signer=signer,
        )
    salt_bytes = {request.salt_bytes for request in world.rooms.asked if isinstance(request, sam.SignHash)}
    assert salt_bytes == {222 if pss else None}
    trusted = described.signing_cert
    assert trusted.dump() == certificate
    status = await async_validate_pdf_signature(
        PdfFileReader(signed).embedded_signatures[0], ValidationContext(trust_roots=[trusted])
    )
    assert status.bottom_line
