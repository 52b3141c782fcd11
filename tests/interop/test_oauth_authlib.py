"""Authlib's OAuth client against the compat profile, as it is served."""

from collections.abc import AsyncIterator

import httpx
import pytest
from authlib.integrations.base_client import OAuthError
from authlib.integrations.httpx_client import AsyncOAuth2Client

from tests.support.oauth import CALLBACK, DIGEST, SECRET, SHA256_OID, VERIFIER, b64url
from tests.support.served import Served, serve


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    async with serve() as served:
        yield served


def authlib(served: Served, *, method: str = "client_secret_basic", scope: str = "service") -> AsyncOAuth2Client:
    return AsyncOAuth2Client(
        client_id="web",
        client_secret=SECRET,
        token_endpoint_auth_method=method,
        token_endpoint=f"{served.issuer}/oauth2/token",
        revocation_endpoint_auth_method=method,
        redirect_uri=CALLBACK,
        scope=scope,
        code_challenge_method="S256",
    )


async def approved(client: AsyncOAuth2Client, served: Served, **parameters: str) -> str:
    """The address that the browser brings back."""
    address, _ = client.create_authorization_url(
        f"{served.issuer}/oauth2/authorize", code_verifier=VERIFIER, **parameters
    )
    async with httpx.AsyncClient() as browser:
        page = await browser.get(address)
        back = await browser.get(page.headers["location"])
    location = str(back.headers["location"])
    assert location.startswith(CALLBACK)
    return location


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post"])
async def test_authlib_gets_refreshes_and_revokes_tokens(served: Served, method: str) -> None:
    async with authlib(served, method=method) as client:
        location = await approved(client, served)
        token = await client.fetch_token(authorization_response=location, code_verifier=VERIFIER)
        assert served.read(token["access_token"]).user_id == "alice"
        refreshed = await client.refresh_token(f"{served.issuer}/oauth2/token")
        assert refreshed["refresh_token"] != token["refresh_token"]
        answer = await client.revoke_token(f"{served.issuer}/oauth2/revoke", refreshed["refresh_token"])
        assert answer.status_code == 204
        with pytest.raises(OAuthError, match="invalid_grant"):
            await client.refresh_token(f"{served.issuer}/oauth2/token", refreshed["refresh_token"])


async def test_authlib_gets_a_token_of_one_authorization(served: Served) -> None:
    async with authlib(served, scope="credential") as client:
        asked = {"credentialID": "c-1", "hashes": b64url(DIGEST), "hashAlgorithmOID": SHA256_OID, "numSignatures": "1"}
        location = await approved(client, served, **asked)
        token = await client.fetch_token(authorization_response=location, code_verifier=VERIFIER)
        assert served.read(token["access_token"]).authorization_id == "a-1"
        assert "refresh_token" not in token


async def test_authlib_is_refused_with_another_verifier_and_a_second_time(served: Served) -> None:
    async with authlib(served) as client:
        with pytest.raises(OAuthError, match="invalid_grant"):
            await client.fetch_token(authorization_response=await approved(client, served), code_verifier="w" * 43)
        location = await approved(client, served)
        await client.fetch_token(authorization_response=location, code_verifier=VERIFIER)
        with pytest.raises(OAuthError, match="invalid_grant"):
            await client.fetch_token(authorization_response=location, code_verifier=VERIFIER)


async def test_authlib_gets_a_token_of_its_own(served: Served) -> None:
    async with authlib(served) as client:
        token = await client.fetch_token(grant_type="client_credentials")
        assert served.read(token["access_token"]).user_id is None
