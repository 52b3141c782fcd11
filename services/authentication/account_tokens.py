"""Account tokens (CSC API 8.4.1): a client names the account of the signer it sends. Rules only, no I/O.

One names, it proves nothing of the signer: who it names must still log in and approve. So the key that it is made
with, SHA-256 of the client's secret, is kept as it is, of clients that were added with `account-tokens` only: who
reads it can name accounts to that client's requests, and can neither authenticate as the client nor find its secret,
which has 256 bits.
"""

import hashlib
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from joserfc import jws, jwt
from joserfc.errors import JoseError
from joserfc.jwk import OctKey

from services.authentication.clients import Assertion, Client
from services.authentication.oauth import Refusal, invalid

_CHARS_MAX = 4096
_AGE_MAX = timedelta(minutes=10)
_SKEW = timedelta(seconds=10)
_USER_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@-]{0,127}")


@dataclass(frozen=True)
class AccountToken:
    user_id: str
    spending: Assertion


def account_token_key(secret: str) -> bytes:
    """What the standard makes account tokens with."""
    return hashlib.sha256(secret.encode()).digest()


def check_account_token(client: Client, text: str, *, now: datetime) -> AccountToken:
    """The account, once the client's key fits; it may be used once, within ten minutes of its making."""
    refused = invalid("account_token")
    if client.account_token_key is None or len(text) > _CHARS_MAX:
        raise refused
    try:
        header = jws.extract_compact(text.encode()).headers()
        if header.get("alg") != "HS256" or header.get("typ") not in (None, "JWT"):
            raise refused
        key = OctKey.import_key(client.account_token_key)
        claims = jwt.decode(text, key, algorithms=["HS256"]).claims
        issued_at = datetime.fromtimestamp(claims["iat"], UTC)
    except (JoseError, ValueError, KeyError, TypeError, OverflowError, OSError):
        raise refused from None
    user_id, token_id = claims.get("sub"), claims.get("jti")
    if claims.get("azp") != client.client_id or not isinstance(user_id, str) or not _USER_ID.fullmatch(user_id):
        raise refused
    if not isinstance(token_id, str) or not 1 <= len(token_id) <= 255:  # noqa: PLR2004 - a limit, as everything has
        raise refused
    if issued_at > now + _SKEW:
        raise refused
    if issued_at <= now - _AGE_MAX:
        raise Refusal("invalid_request", "The account_token is too old")
    digest = hashlib.sha256(f"account\0{client.client_id}\0{token_id}".encode()).digest()
    return AccountToken(user_id=user_id, spending=Assertion(digest=digest, expires_at=issued_at + _AGE_MAX + _SKEW))
