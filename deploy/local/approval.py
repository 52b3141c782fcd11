"""A partner's OAuth client: asks for a signer's approval of exactly these hashes, and redeems it.

Pushed request (RFC 9126) with authorization_details (RFC 9396, CSC 2.2), PKCE; state and issuer are checked on the way
back. Knows only public addresses.
"""

import base64
import hashlib
import json
import secrets
import urllib.parse
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from pyhanko.sign.signers.csc_signer import (
    CSCAuthorizationInfo,
    CSCAuthorizationManager,
    CSCCredentialInfo,
    CSCServiceSessionInfo,
)

from deploy.local.partner import Client, basic, post
from deploy.local.program import StackError

_TYPE = "https://cloudsignatureconsortium.org/2025/credential"
_SHA256 = "2.16.840.1.101.3.4.2.1"


@dataclass(frozen=True)
class Asked:
    """An approval on its way: where the signer has to go, and what must come back."""

    url: str
    state: str
    verifier: str
    details: str | None
    """The authorization_details, which the token request repeats (CSC 2.0)."""


@dataclass(frozen=True)
class Approved:
    """The access token of one authorization."""

    token: str
    expires_in_s: int


@dataclass(frozen=True)
class ApprovalClient:
    """One registered program of a partner. `issuer` is authentication's name for itself."""

    issuer: str
    client: Client
    redirect_uri: str

    def ask(self, credential_id: str, documents: Sequence[tuple[str, str]], *, lang: str = "en") -> Asked:
        """Push what is to be approved: each document's label and its SHA-256 in base64."""
        detail = {
            "type": _TYPE,
            "credentialID": credential_id,
            "numSignatures": len(documents),
            "documentDigests": [{"label": label, "hash": digest} for label, digest in documents],
            "hashAlgorithmOID": _SHA256,
        }
        return self._push({"authorization_details": json.dumps([detail])}, lang)

    def ask_for_the_service(self, *, lang: str = "en") -> Asked:
        """To use the service for whoever logs in: `credentials/list` then shows that signer's own."""
        return self._push({"scope": "service"}, lang)

    def _push(self, what: dict[str, str], lang: str) -> Asked:
        state, verifier = secrets.token_urlsafe(16), secrets.token_urlsafe(48)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        form = {
            "response_type": "code",
            "client_id": self.client.client_id,
            "redirect_uri": self.redirect_uri,
            "state": state,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
            "lang": lang,
        } | what
        pushed = self._post("pushed_authorize", form)
        query = urllib.parse.urlencode({"client_id": self.client.client_id, "request_uri": pushed["request_uri"]})
        return Asked(f"{self.issuer}/oauth2/authorize?{query}", state, verifier, what.get("authorization_details"))

    def redeem(self, asked: Asked, came_back: str) -> Approved:
        """Change the code in the address the browser came back to for the token."""
        answer = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(came_back).query))
        if answer.get("state") != asked.state or answer.get("iss") != self.issuer:
            raise StackError("an answer to another request, or of another server")
        if "error" in answer:
            raise StackError(f"not approved: {answer['error']} {answer.get('error_description', '')}")
        form = {
            "grant_type": "authorization_code",
            "code": answer["code"],
            "client_id": self.client.client_id,
            "redirect_uri": self.redirect_uri,
            "code_verifier": asked.verifier,
        } | ({"authorization_details": asked.details} if asked.details else {})
        answered = self._post("token", form)
        return Approved(answered["access_token"], answered["expires_in"])

    def _post(self, endpoint: str, form: dict[str, str]) -> dict[str, Any]:
        headers = {"Authorization": basic(self.client), "Content-Type": "application/x-www-form-urlencoded"}
        return post(f"{self.issuer}/oauth2/{endpoint}", urllib.parse.urlencode(form).encode(), headers)


class PageAuthorization(CSCAuthorizationManager):
    """pyHanko's hook: for the hashes it is about to sign, the signer is sent to the page. The token is the SAD."""

    def __init__(
        self,
        info: CSCServiceSessionInfo,
        credential: CSCCredentialInfo,
        approve: Callable[[list[str]], Awaitable[Approved]],
    ) -> None:
        super().__init__(info, credential)
        self._approve = approve

    async def authorize_signature(self, hash_b64s: list[str]) -> CSCAuthorizationInfo:
        approved = await self._approve(hash_b64s)
        return CSCAuthorizationInfo(
            sad=approved.token, expires_at=datetime.now(UTC) + timedelta(seconds=approved.expires_in_s)
        )
