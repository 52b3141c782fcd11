"""What a signer granted a client, and what must hold when its code comes back. Rules only, no I/O."""

import hashlib
import hmac
import re
import secrets
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from services.authentication.changes import Change
from services.authentication.documents import Signing, read_details
from services.authentication.oauth import Refusal, missing

REFRESH_PREFIX = "rkr_"
_VERIFIER = re.compile(r"[A-Za-z0-9._~-]{43,128}")
BAD_CODE = "Invalid parameter code"
BAD_REFRESH_TOKEN = "Invalid parameter refresh_token"  # noqa: S105 - words of the standard, not a secret


@dataclass(frozen=True)
class Grant:
    """One decision of one signer. Its code is stored beside it by digest only."""

    grant_id: bytes
    client_id: str
    tenant_id: str
    user_id: str
    scope: str
    authorization_id: str | None
    credential_id: str | None
    redirect_uri: str
    redirect_uri_given: bool
    code_challenge: str | None
    key_thumbprint: str | None
    details: str | None
    code_expires_at: datetime
    code_spent_at: datetime | None
    granted_at: datetime
    expires_at: datetime
    """Nothing that comes of it outlives this."""
    revoked_at: datetime | None
    authority: str | None = None
    """Of a creation: the CA and the profile that the signer was shown."""
    certificate_profile: str | None = None


@dataclass(frozen=True)
class RefreshToken:
    expires_at: datetime
    spent_at: datetime | None


@dataclass(frozen=True)
class Binding:
    """Whom a token is good from: who proves this key (RFC 9449), or shows this certificate (RFC 8705). At most one."""

    key_thumbprint: str | None = None
    certificate_thumbprint: str | None = None


def new_id() -> str:
    """For requests: in addresses that a person may see."""
    return secrets.token_urlsafe(24)


def new_code() -> str:
    return secrets.token_urlsafe(32)


def new_refresh_token() -> str:
    return REFRESH_PREFIX + secrets.token_urlsafe(32)


def digest_of(text: str) -> bytes:
    """What is stored in the place of a code, a refresh token, a request's id. All have 192 bits or more."""
    return hashlib.sha256(text.encode()).digest()


def check_code(grant: Grant, form: Mapping[str, str], binding: Binding, *, now: datetime) -> None:
    """Refuse unless its code is redeemed in time, by who asked for it, as it was asked for (RFC 6749 4.1.3).

    That the client is the grant's and that the code is unspent, the caller has seen.
    """
    if grant.code_expires_at <= now:
        raise Refusal("invalid_grant", "Authorization code is invalid or expired")
    redirect_uri = form.get("redirect_uri")
    if redirect_uri != grant.redirect_uri and (grant.redirect_uri_given or redirect_uri is not None):
        raise Refusal(
            "invalid_grant", "redirect_uri parameter does not match redirect_uri parameter of authorization request"
        )
    _check_verifier(grant.code_challenge, form.get("code_verifier"))
    if grant.key_thumbprint not in (None, binding.key_thumbprint):
        raise Refusal("invalid_dpop_proof", "The code is bound to another key (dpop_jkt)")
    _check_details(grant.details, form.get("authorization_details"))


def _check_verifier(challenge: str | None, verifier: str | None) -> None:
    if challenge is None:
        # A verifier without a challenge is a code that was put in the place of another (RFC 9700 4.8.2).
        if verifier is not None:
            raise Refusal("invalid_grant", "Invalid parameter code_verifier")
        return
    if verifier is None:
        raise missing("code_verifier")
    made = urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=")
    if not _VERIFIER.fullmatch(verifier) or not hmac.compare_digest(made, challenge.encode()):
        raise Refusal("invalid_grant", "Invalid parameter code_verifier")


def _check_details(details: str | None, repeated: str | None) -> None:
    """Some repeat them with the same hashes in the other alphabet of base64: what they mean is compared."""
    if repeated is None:
        return
    if details is None or _meaning(repeated) != _meaning(f"[{details}]"):
        raise Refusal("invalid_authorization_details", "authorization_details are not those of the request")


def _meaning(text: str) -> Signing | Change:
    return read_details(text)[0]
