"""What a partner does: gets a token, and signs a PDF with pyHanko's own CSC client. Knows only public addresses."""

import base64
import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import aiohttp
from asn1crypto import cms, tsp
from pyhanko.pdf_utils.incremental_writer import IncrementalPdfFileWriter
from pyhanko.sign import PdfSignatureMetadata, PdfSigner
from pyhanko.sign.fields import SigSeedSubFilter
from pyhanko.sign.signers.csc_signer import (
    CSCAuthorizationInfo,
    CSCAuthorizationManager,
    CSCCredentialInfo,
    CSCServiceSessionInfo,
    CSCSigner,
    fetch_certs_in_csc_credential,
)
from pyhanko.sign.timestamps.api import TimeStamper

from deploy.local.program import StackError


@dataclass(frozen=True)
class Client:
    """An OAuth client of a tenant."""

    client_id: str
    secret: str


def get_token(authentication_url: str, client: Client) -> str:
    """An access token by `client_credentials` (CSC 8.4)."""
    form = {"grant_type": "client_credentials", "scope": "service"}
    answer = post(
        f"{authentication_url}/oauth2/token",
        urllib.parse.urlencode(form).encode(),
        {"Authorization": basic(client), "Content-Type": "application/x-www-form-urlencoded"},
    )
    token: str = answer["access_token"]
    return token


def basic(client: Client) -> str:
    """The Authorization header of a client with a secret."""
    return "Basic " + base64.b64encode(f"{client.client_id}:{client.secret}".encode()).decode()


def call(gateway_url: str, method: str, token: str, parameters: dict[str, Any]) -> dict[str, Any]:
    """One method of CSC v1, as any HTTP client calls it."""
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    return post(f"{gateway_url}/csc/v1/{method}", json.dumps(parameters).encode(), headers)


class PINAuthorization(CSCAuthorizationManager):
    """Asks `credentials/authorize` for exactly the hashes to be signed, with the signer's PIN."""

    def __init__(
        self, session: aiohttp.ClientSession, info: CSCServiceSessionInfo, credential: CSCCredentialInfo, pin: str
    ) -> None:
        super().__init__(info, credential)
        self._session = session
        self._pin = pin

    async def authorize_signature(self, hash_b64s: list[str]) -> CSCAuthorizationInfo:
        request = self.format_csc_auth_request(hash_b64s=hash_b64s, pin=self._pin)
        url = self.csc_session_info.endpoint_url("credentials/authorize")
        async with self._session.post(url, headers=self.auth_headers, json=request) as answer:
            return self.parse_csc_auth_response(await _read(answer))


class CSCTimeStamper(TimeStamper):
    """Time-stamps through `signatures/timestamp` (CSC 11.10) instead of asking a TSA itself."""

    def __init__(self, session: aiohttp.ClientSession, info: CSCServiceSessionInfo) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # pyHanko is typed in parts
        self._session = session
        self._info = info

    async def async_request_tsa_response(self, req: tsp.TimeStampReq) -> tsp.TimeStampResp:
        imprint = req["message_imprint"]
        request = {
            "hash": base64.b64encode(imprint["hashed_message"].native).decode(),
            "hashAlgo": imprint["hash_algorithm"]["algorithm"].dotted,
            "nonce": f"{req['nonce'].native:x}",
        }
        url = self._info.endpoint_url("signatures/timestamp")
        async with self._session.post(url, headers=self._info.auth_headers, json=request) as answer:
            token = base64.b64decode((await _read(answer))["timestamp"])
        status = tsp.PKIStatusInfo({"status": "granted"})
        return tsp.TimeStampResp({"status": status, "time_stamp_token": cms.ContentInfo.load(token)})


Authorizing = Callable[[aiohttp.ClientSession, CSCServiceSessionInfo, CSCCredentialInfo], CSCAuthorizationManager]


async def sign_pdf(
    document: bytes, *, gateway_url: str, token: str, credential_id: str, pin: str, version: str = "v1"
) -> bytes:
    """Signed with the signer's PIN."""

    def by_pin(
        session: aiohttp.ClientSession, info: CSCServiceSessionInfo, credential: CSCCredentialInfo
    ) -> CSCAuthorizationManager:
        return PINAuthorization(session, info, credential, pin)

    return await sign_pdf_by(
        by_pin, document, gateway_url=gateway_url, token=token, credential_id=credential_id, version=version
    )


async def sign_pdf_by(
    authorizing: Authorizing,
    document: bytes,
    *,
    gateway_url: str,
    token: str,
    credential_id: str,
    version: str = "v1",
) -> bytes:
    """The document with a PAdES signature (B-T: with a time-stamp), however its hash gets authorized."""
    info = CSCServiceSessionInfo(gateway_url, credential_id, oauth_token=token, api_ver=version)
    async with _session() as session:
        credential = await fetch_certs_in_csc_credential(session, info)
        signer = CSCSigner(session, authorizing(session, info, credential), sign_timeout=60)
        metadata = PdfSignatureMetadata(
            field_name="Signature", md_algorithm="sha256", subfilter=SigSeedSubFilter.PADES, reason="Demonstration"
        )
        pdf_signer = PdfSigner(metadata, signer, timestamper=CSCTimeStamper(session, info))
        output = BytesIO()
        await pdf_signer.async_sign_pdf(IncrementalPdfFileWriter(BytesIO(document)), output=output)
        return output.getvalue()


@asynccontextmanager
async def _session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def _read(answer: aiohttp.ClientResponse) -> dict[str, Any]:
    body: dict[str, Any] = await answer.json()
    if answer.status != 200:  # noqa: PLR2004 - HTTP's OK
        raise StackError(f"{answer.url.path} answered {answer.status}: {json.dumps(body)}")
    return body


def post(url: str, body: bytes, headers: dict[str, str]) -> dict[str, Any]:
    """POST, and the JSON that comes back; StackError with the answer when it is a refusal."""
    request = urllib.request.Request(url, body, headers, method="POST")  # noqa: S310 - an http URL of our own stack
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - likewise
            answered: dict[str, Any] = json.loads(answer.read() or b"{}")
            return answered
    except urllib.error.HTTPError as error:
        raise StackError(f"{url} answered {error.code}: {error.read().decode(errors='replace')}") from None
