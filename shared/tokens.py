"""Access tokens (RFC 9068): written by authentication, checked by authentication and, for itself, by the SAM."""

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet, OKPKey

from shared.errors import Code, RakkanError
from shared.trust import Purpose, SigningKey, Trust

_ALGORITHM = "Ed25519"
_TYPE = "at+jwt"
AUDIENCE = "rakkan"


@dataclass(frozen=True, slots=True)
class AccessToken:
    """Who may use the service, until when.

    Scope `service` is a client's, or a signer's through that client when `user_id` is there. Scope `credential` names
    one authorization of the SAM and is good for what that one covers, and nothing else. A signer's word on one new
    credential, or on the end of one, has a scope of its own (`shared.contracts.issuance`).
    """

    token_id: str
    issuer: str
    client_id: str
    tenant_id: str
    scope: str
    issued_at: datetime
    expires_at: datetime
    user_id: str | None = None
    credential_id: str | None = None
    authorization_id: str | None = None
    key_thumbprint: str | None = None
    """RFC 9449 `jkt`: the token is good only with a proof by this key."""
    certificate_thumbprint: str | None = None
    """RFC 8705 `x5t#S256`: the token is good only from a caller who shows this certificate."""
    authority: str | None = None
    """The CA that a signer agreed to have a new credential of."""
    certificate_profile: str | None = None


def write_token(token: AccessToken, key: SigningKey) -> str:
    """The JWT, signed with a key of purpose `tokens`."""
    header = {"alg": _ALGORITHM, "typ": _TYPE, "kid": key.key_id}
    claims: dict[str, Any] = {
        "iss": token.issuer,
        "sub": token.user_id or token.client_id,
        "aud": AUDIENCE,
        "client_id": token.client_id,
        "tenant": token.tenant_id,
        "scope": token.scope,
        "jti": token.token_id,
        "iat": int(token.issued_at.timestamp()),
        "exp": int(token.expires_at.timestamp()),
    }
    optional = {
        "user": token.user_id,
        "credential": token.credential_id,
        "authorization": token.authorization_id,
        "cnf": _confirmation(token),
        "authority": token.authority,
        "certificate_profile": token.certificate_profile,
    }
    claims |= {name: value for name, value in optional.items() if value is not None}
    return jwt.encode(header, claims, OKPKey.import_key(key.key), algorithms=[_ALGORITHM])


def _confirmation(token: AccessToken) -> dict[str, str] | None:
    """What the token is bound to (RFC 7800)."""
    bound = {"jkt": token.key_thumbprint, "x5t#S256": token.certificate_thumbprint}
    return {name: value for name, value in bound.items() if value is not None} or None


def verifying_keys(trust: Trust) -> KeySet:
    """The public keys of authentication from the trust bundle, by key id."""
    keys = trust.verifying_keys("authentication", Purpose.TOKENS)
    return KeySet([OKPKey.import_key(key, {"kid": key_id, "use": "sig"}) for key_id, key in keys.items()])


class TokenReader:
    """Reads tokens as `read_token` does, and knows again what it has verified: a client sends one token many times.

    What is remembered is the token's hash and that its signature was good. Times are checked whenever it comes, and
    revocation is asked for by whoever reads it.
    """

    def __init__(self, keys: KeySet, *, remembered_max: int = 1024) -> None:
        self._keys = keys
        self._remembered_max = remembered_max
        self._verified: dict[bytes, AccessToken] = {}

    def read(self, text: str, *, now: datetime) -> AccessToken:
        """The token's facts; refuses as `read_token` does."""
        digest = hashlib.sha256(text.encode()).digest()
        token = self._verified.get(digest)
        if token is None:
            token = _verify(text, self._keys)
            if len(self._verified) >= self._remembered_max:
                del self._verified[next(iter(self._verified))]
            self._verified[digest] = token
        return _in_time(token, now=now)


def read_token(text: str, keys: KeySet, *, now: datetime) -> AccessToken:
    """The token's facts; TOKEN_INVALID when it is not ours as it stands, TOKEN_EXPIRED when it was."""
    return _in_time(_verify(text, keys), now=now)


def _verify(text: str, keys: KeySet) -> AccessToken:
    try:
        decoded = jwt.decode(text, keys, algorithms=[_ALGORITHM])
        claims = decoded.claims
        if decoded.header.get("typ") != _TYPE or claims["aud"] != AUDIENCE:
            raise RakkanError(Code.TOKEN_INVALID, "not an access token for this service")
        return AccessToken(
            token_id=claims["jti"],
            issuer=claims["iss"],
            client_id=claims["client_id"],
            tenant_id=claims["tenant"],
            scope=claims["scope"],
            issued_at=datetime.fromtimestamp(claims["iat"], UTC),
            expires_at=datetime.fromtimestamp(claims["exp"], UTC),
            user_id=claims.get("user"),
            credential_id=claims.get("credential"),
            authorization_id=claims.get("authorization"),
            key_thumbprint=claims.get("cnf", {}).get("jkt"),
            certificate_thumbprint=claims.get("cnf", {}).get("x5t#S256"),
            authority=claims.get("authority"),
            certificate_profile=claims.get("certificate_profile"),
        )
    except (JoseError, ValueError, KeyError, TypeError):
        raise RakkanError(Code.TOKEN_INVALID, "not signed by our authentication service") from None


def _in_time(token: AccessToken, *, now: datetime) -> AccessToken:
    if now >= token.expires_at:
        raise RakkanError(Code.TOKEN_EXPIRED)
    if token.issued_at > now + timedelta(seconds=5):
        raise RakkanError(Code.TOKEN_INVALID, "from the future")
    return token
