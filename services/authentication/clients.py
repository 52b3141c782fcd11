"""How partners prove who they are: secrets, assertions (RFC 7523) and the keys they register. Rules only, no I/O."""

import hashlib
import hmac
import json
import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from joserfc import jws, jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, KeySet, OKPKey, RSAKey

from shared.contracts.authentication import ClientFlag, ClientMethod, ClientProfile
from shared.errors import Code, RakkanError

ALGORITHMS = ("Ed25519", "EdDSA", "ES256", "ES384", "ES512", "PS256", "PS384", "PS512", "RS256", "RS384", "RS512")
"""What an assertion may be signed with. Nothing symmetric: `none` and HMAC are the classical forgeries."""
HARDENED_ALGORITHMS = ("Ed25519", "EdDSA", "ES256", "PS256")
"""Of a hardened client (FAPI 2.0 5.4)."""
_FAMILIES: dict[str, type] = {"Ed": OKPKey, "ES": ECKey, "PS": RSAKey, "RS": RSAKey}
_CURVES = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521"}
_TYPES = (None, "JWT", "client-authentication+jwt")
_KEYS_MAX = 8
_RSA_BITS = range(2048, 8193)
_ASSERTION_CHARS_MAX = 8192
_LIFETIME_MAX = timedelta(minutes=5)
_SKEW = timedelta(seconds=10)
_SECRET_PREFIX = "rks_"  # noqa: S105 - what scanners for leaked secrets look for, not a secret


@dataclass(frozen=True)
class Client:
    """A partner's program. `suspended` also when its tenant is."""

    client_id: str
    tenant_id: str
    method: ClientMethod
    secret_hash: bytes | None
    jwks: str | None
    suspended: bool
    name: str = ""
    profile: ClientProfile = "csc-compat"
    redirect_uris: tuple[str, ...] = ()
    flags: frozenset[ClientFlag] = frozenset()
    account_token_key: bytes | None = field(default=None, repr=False)
    certificate_name: str | None = None

    @property
    def is_hardened(self) -> bool:
        return self.profile == "hardened"


@dataclass(frozen=True)
class Assertion:
    """A client assertion that holds. It is spent by its digest, and may be forgotten after `expires_at`."""

    digest: bytes
    expires_at: datetime


def new_secret() -> str:
    """256 random bits; never chosen by people."""
    return _SECRET_PREFIX + secrets.token_urlsafe(32)


def hash_secret(client_id: str, secret: str) -> bytes:
    """What is stored of a secret.

    One HMAC and no slow hash: a secret is 256 bits that we drew ourselves, so there is no dictionary to slow down, and
    a slow hash at an open endpoint would be a lever for those who want to exhaust it.
    """
    return hmac.digest(secret.encode(), b"rakkan-client-secret/1\0" + client_id.encode(), "sha256")


def check_secret(client: Client, secret: str) -> None:
    """CLIENT_REFUSED unless this is the client's secret."""
    kept = client.secret_hash or bytes(32)
    if not hmac.compare_digest(kept, hash_secret(client.client_id, secret)) or client.secret_hash is None:
        raise RakkanError(Code.CLIENT_REFUSED, "wrong client secret")


def claimed_client_id(assertion: str) -> str:
    """Whom an assertion claims to be of, unchecked: only good for looking up whose keys to check it with."""
    try:
        claims = json.loads(jws.extract_compact(assertion[:_ASSERTION_CHARS_MAX].encode()).payload)
        subject = claims["sub"]
    except (JoseError, ValueError, KeyError, TypeError):
        raise RakkanError(Code.CLIENT_REFUSED, "unreadable assertion") from None
    if not isinstance(subject, str):
        raise RakkanError(Code.CLIENT_REFUSED, "unreadable assertion")
    return subject


def check_assertion(client: Client, assertion: str, *, issuer: str, now: datetime) -> Assertion:
    """CLIENT_REFUSED unless the client made this for us, just now (RFC 7523 3).

    The audience is our issuer as one string. An endpoint's URL or a list would let an assertion that was made for
    another server be used here (the audience injection of 2025).
    """
    if client.method != "private_key_jwt" or client.jwks is None or len(assertion) > _ASSERTION_CHARS_MAX:
        raise RakkanError(Code.CLIENT_REFUSED, "this client has no keys, or the assertion is too long")
    claims = _verified(client.jwks, assertion, HARDENED_ALGORITHMS if client.is_hardened else ALGORITHMS)
    if not claims.get("iss") == claims.get("sub") == client.client_id:
        raise RakkanError(Code.CLIENT_REFUSED, "the assertion is about another client")
    if claims.get("aud") != issuer:
        raise RakkanError(Code.CLIENT_REFUSED, "the assertion is for another audience")
    expires_at = _moment(claims, "exp")
    if expires_at is None or expires_at <= now:
        raise RakkanError(Code.CLIENT_REFUSED, "the assertion has expired")
    if expires_at > now + _LIFETIME_MAX + _SKEW:
        raise RakkanError(Code.CLIENT_REFUSED, "the assertion lives longer than five minutes")
    for name in ("iat", "nbf"):
        moment = _moment(claims, name)
        if moment is not None and moment > now + _SKEW:
            raise RakkanError(Code.CLIENT_REFUSED, "the assertion is from the future")
    token_id = claims.get("jti")
    if not isinstance(token_id, str) or not 1 <= len(token_id) <= 255:  # noqa: PLR2004 - a limit, as everything has
        raise RakkanError(Code.CLIENT_REFUSED, "the assertion has no usable jti")
    digest = hashlib.sha256(f"{client.client_id}\0{token_id}".encode()).digest()
    return Assertion(digest=digest, expires_at=expires_at)


def check_jwks(text: str) -> None:
    """MALFORMED unless these are one to eight public keys that assertions may be checked with."""
    try:
        keys = _keys(text)
    except (JoseError, ValueError, KeyError, TypeError, AttributeError):
        raise RakkanError(Code.MALFORMED, "not a JWK Set of public RSA, EC and Ed25519 keys") from None
    if not 1 <= len(keys) <= _KEYS_MAX:
        raise RakkanError(Code.MALFORMED, f"a JWK Set has one to {_KEYS_MAX} keys")
    for key in keys:
        if key.is_private:
            raise RakkanError(Code.MALFORMED, "a private key was sent: it is compromised now, make another one")
        if isinstance(key, RSAKey) and key.public_key.key_size not in _RSA_BITS:
            raise RakkanError(Code.MALFORMED, f"RSA keys have {_RSA_BITS[0]} to {_RSA_BITS[-1]} bits")
        if isinstance(key, ECKey) and key.curve_name not in _CURVES.values():
            raise RakkanError(Code.MALFORMED, "EC keys are on P-256, P-384 or P-521")
        if isinstance(key, OKPKey) and key.curve_name != "Ed25519":
            raise RakkanError(Code.MALFORMED, "OKP keys are Ed25519")


_Key = RSAKey | ECKey | OKPKey


def _keys(text: str) -> list[_Key]:
    given = json.loads(text)["keys"]
    if any(key["kty"] not in ("RSA", "EC", "OKP") for key in given):
        raise ValueError("a key of another kind")
    return cast(list[_Key], KeySet.import_key_set({"keys": given}).keys)


class _Registry(jws.JWSRegistry):
    """Our algorithms and no others. joserfc warns of the name EdDSA, which clients still write for Ed25519."""

    def get_alg(self, name: str) -> Any:
        if name not in ALGORITHMS:
            raise RakkanError(Code.CLIENT_REFUSED, "an assertion by an algorithm that is not allowed")
        return self.algorithms[name]


def _verified(jwks: str, assertion: str, algorithms: tuple[str, ...]) -> dict[str, Any]:
    """The claims, once one of the client's keys fits. Keys are chosen here: joserfc takes any when `kid` is missing."""
    try:
        header = jws.extract_compact(assertion.encode()).headers()
        algorithm, key_id = str(header["alg"]), header.get("kid")
    except (JoseError, ValueError, KeyError):
        raise RakkanError(Code.CLIENT_REFUSED, "unreadable assertion") from None
    if algorithm not in algorithms or header.get("typ") not in _TYPES:
        raise RakkanError(Code.CLIENT_REFUSED, "an assertion by an algorithm or of a type that is not allowed")
    for key in _keys(jwks):
        if not _fits(key, algorithm) or (key_id is not None and key.kid not in (key_id, None)):
            continue
        try:
            return dict(jwt.decode(assertion, key, registry=_Registry()).claims)
        except (JoseError, ValueError):
            continue
    raise RakkanError(Code.CLIENT_REFUSED, "the assertion is by none of the client's keys")


def _fits(key: _Key, algorithm: str) -> bool:
    if not isinstance(key, _FAMILIES[algorithm[:2]]):
        return False
    named = key.get("alg")
    if named is not None and named != algorithm:
        return False
    return not isinstance(key, ECKey) or key.curve_name == _CURVES[algorithm]


def _moment(claims: dict[str, Any], name: str) -> datetime | None:
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RakkanError(Code.CLIENT_REFUSED, f"{name} is no number")
    try:
        return datetime.fromtimestamp(value, UTC)
    except (ValueError, OverflowError, OSError):
        raise RakkanError(Code.CLIENT_REFUSED, f"{name} is no moment") from None
