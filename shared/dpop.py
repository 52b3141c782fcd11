"""DPoP proofs (RFC 9449): what a good one is, and a memory of those already seen. Knows no HTTP and no database.

Checked by authentication where tokens are issued and by the gateway where they are used. There is no server nonce: a
proof is good for a minute, once, for one method and one address.
"""

import hashlib
import hmac
import json
from base64 import urlsafe_b64encode
from collections import OrderedDict
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

from joserfc import jws, jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey

from shared.errors import Code, RakkanError

ALGORITHMS = ("ES256", "Ed25519", "EdDSA", "PS256")
"""What a proof may be signed with (FAPI 2.0 5.4)."""
_KINDS: dict[str, tuple[type[ECKey] | type[OKPKey] | type[RSAKey], str | None]] = {
    "ES256": (ECKey, "P-256"),
    "Ed25519": (OKPKey, "Ed25519"),
    "EdDSA": (OKPKey, "Ed25519"),
    "PS256": (RSAKey, None),
}
_PRIVATE = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
_RSA_BITS = range(2048, 8193)
_PROOF_CHARS_MAX = 8192
_OLD_MAX = timedelta(seconds=60)
_SKEW = timedelta(seconds=10)
_PORTS = {"https": 443, "http": 80}


@dataclass(frozen=True)
class Proof:
    """A proof that holds. It is spent by its digest, and may be forgotten after `expires_at`."""

    key_thumbprint: str
    digest: bytes
    expires_at: datetime
    token_hash: str | None
    """`ath`: of the access token that it was made for."""


class ReplayMemory:
    """Proofs seen in this process. Another process may be shown one again, within its minute."""

    def __init__(self, *, proofs_max: int = 200_000) -> None:
        self._until: OrderedDict[bytes, datetime] = OrderedDict()
        self._proofs_max = proofs_max

    def spend(self, proof: Proof, *, now: datetime) -> None:
        """TOKEN_INVALID when it was seen before; OVERLOADED when there is no room to remember it."""
        while self._until and next(iter(self._until.values())) < now:
            self._until.popitem(last=False)
        if proof.digest in self._until:
            raise RakkanError(Code.TOKEN_INVALID, "the proof was used before")
        if len(self._until) >= self._proofs_max:
            raise RakkanError(Code.OVERLOADED, "too many proofs at once")
        # Kept longer than any proof can be good, so that the order of arrival is the order of forgetting.
        self._until[proof.digest] = now + _OLD_MAX + 2 * _SKEW


def read_proof(text: str, *, method: str, url: str, now: datetime) -> Proof:
    """TOKEN_INVALID unless its key signed it just now, for this method at this address (RFC 9449 4.3)."""
    if len(text) > _PROOF_CHARS_MAX:
        raise _refused("longer than a proof may be")
    key, claims = _verified(text)
    if claims.get("htm") != method:
        raise _refused("for another method")
    if not isinstance(claims.get("htu"), str) or _address(claims["htu"]) != _address(url):
        raise _refused("for another address")
    issued_at = _moment(claims.get("iat"))
    if issued_at < now - _OLD_MAX or issued_at > now + _SKEW:
        raise _refused("not made just now")
    token_id, token_hash = claims.get("jti"), claims.get("ath")
    if not isinstance(token_id, str) or not 1 <= len(token_id) <= 255:  # noqa: PLR2004 - a limit, as everything has
        raise _refused("without a usable jti")
    if token_hash is not None and not isinstance(token_hash, str):
        raise _refused("ath is no text")
    thumbprint = key.thumbprint()
    return Proof(
        key_thumbprint=thumbprint,
        digest=hashlib.sha256(f"dpop\0{thumbprint}\0{token_id}".encode()).digest(),
        expires_at=issued_at + _OLD_MAX + _SKEW,
        token_hash=token_hash,
    )


def check_proof(
    text: str, *, method: str, url: str, access_token: str, key_thumbprint: str, now: datetime, seen: ReplayMemory
) -> None:
    """TOKEN_INVALID unless it proves the key of the token, for this token, the first time (RFC 9449 7)."""
    proof = read_proof(text, method=method, url=url, now=now)
    if not hmac.compare_digest(proof.key_thumbprint, key_thumbprint):
        raise _refused("by another key than the token's")
    wanted = urlsafe_b64encode(hashlib.sha256(access_token.encode()).digest()).rstrip(b"=")
    if proof.token_hash is None or not hmac.compare_digest(proof.token_hash.encode(), wanted):
        raise _refused("for another token")
    seen.spend(proof, now=now)


class _Registry(jws.JWSRegistry):
    """Our algorithms and no others. joserfc warns of the name EdDSA, which clients still write for Ed25519."""

    max_header_length = _PROOF_CHARS_MAX  # an RSA key stands in the header, and 512 bytes are too few for it

    def get_alg(self, name: str) -> Any:
        if name not in ALGORITHMS:
            raise _refused("by an algorithm that is not allowed")
        return self.algorithms[name]


def _verified(text: str) -> tuple[ECKey | OKPKey | RSAKey, dict[str, Any]]:
    registry = _Registry(strict_check_header=False)
    try:
        header = jws.extract_compact(text.encode(), registry=registry).headers()
        if header.get("typ") != "dpop+jwt" or header.get("alg") not in ALGORITHMS or "crit" in header:
            raise _refused("of another type, or by an algorithm that is not allowed")
        key = _key(header["alg"], header["jwk"])
        # Only the key of the header counts: whose it is, the token says.
        claims = dict(jwt.decode(text, key, registry=registry).claims)
        json.dumps(claims, allow_nan=False)
    except (JoseError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise _refused("unreadable, or not signed by its key") from None
    return key, claims


def _key(algorithm: str, jwk: Any) -> ECKey | OKPKey | RSAKey:
    if not isinstance(jwk, dict) or _PRIVATE & jwk.keys():
        raise _refused("its key is not a public one")
    kind, curve = _KINDS[algorithm]
    key = kind.import_key({name: value for name, value in jwk.items() if name in _PUBLIC})
    if isinstance(key, RSAKey):
        if key.public_key.key_size not in _RSA_BITS:
            raise _refused("its key has a length that is not allowed")
    elif key.curve_name != curve:
        raise _refused("its key is on another curve")
    return key


_PUBLIC = frozenset({"kty", "crv", "x", "y", "n", "e"})


def _address(url: str) -> tuple[str, str, int | None, str]:
    """What counts of an address: RFC 9449 4.3 leaves query and fragment out and normalizes scheme, host and port."""
    parts = urlsplit(url)
    if parts.username is not None or parts.password is not None:
        raise _refused("its address names a user")
    try:
        port = parts.port or _PORTS.get(parts.scheme)
    except ValueError:
        raise _refused("its address has no port") from None
    return parts.scheme.lower(), (parts.hostname or "").lower(), port, parts.path or "/"


def _moment(value: Any) -> datetime:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _refused("iat is no number")
    try:
        return datetime.fromtimestamp(value, UTC)
    except (ValueError, OverflowError, OSError):
        raise _refused("iat is no moment") from None


def _refused(why: str) -> RakkanError:
    return RakkanError(Code.TOKEN_INVALID, f"DPoP proof: {why}")
