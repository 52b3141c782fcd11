"""From signAlgo, hash OID and signAlgoParams to one signature algorithm. Rules only.

An OID that names its hash (combined) needs no hash OID; one that contradicts it is refused rather than overruled, since
the client hashed with one of the two and we cannot know which. PSS parameters are honoured or refused, never replaced.
"""

import re

from asn1crypto.algos import RSASSAPSSParams

from shared.algorithms import (
    COMBINED_OIDS,
    EC_BARE_OID,
    ED25519_OID,
    HASH_BY_OID,
    PSS_OID,
    RSA_BARE_OID,
    Hash,
    Scheme,
    SignatureAlgorithm,
)
from shared.errors import Code, RakkanError

_NULL = b"\x05\x00"
_MGF1_OID = "1.2.840.113549.1.1.8"
_SALT_BYTES_MAX = 512
_OID = re.compile(r"[0-2](\.(0|[1-9][0-9]{0,38})){1,31}")

_BARE = {
    RSA_BARE_OID: Scheme.RSA_PKCS1,
    EC_BARE_OID: Scheme.ECDSA,
    # The CSC hands in a digest, and Ed25519 signs it as its message: which hash made it must be said.
    ED25519_OID: Scheme.ED25519,
}


def read_hash(oid: str) -> Hash:
    """The hash, or HASH_ALGORITHM_REFUSED: unknown, or weaker than SHA-256 (CSC 1.0.4.0, 11.9)."""
    found = HASH_BY_OID.get(oid)
    if found is None:
        raise RakkanError(Code.HASH_ALGORITHM_REFUSED, oid if _OID.fullmatch(oid) else "not an OID")
    return found


def read_algorithm(sign_oid: str, hash_oid: str | None, parameters: bytes | None) -> SignatureAlgorithm:
    """The algorithm that is asked for.

    Raises HASH_ALGORITHM_REQUIRED, HASH_ALGORITHM_REFUSED, SIGN_ALGORITHM_REFUSED or SIGN_PARAMETERS_REFUSED.
    """
    named = read_hash(hash_oid) if hash_oid is not None else None
    if sign_oid == PSS_OID:
        return _pss(named, parameters)
    scheme, hash_ = _scheme(sign_oid, named)
    if parameters is not None and not (scheme is Scheme.RSA_PKCS1 and parameters == _NULL):
        raise RakkanError(Code.SIGN_PARAMETERS_REFUSED, f"{sign_oid} takes no parameters")
    return SignatureAlgorithm(scheme, hash_)


def _scheme(sign_oid: str, named: Hash | None) -> tuple[Scheme, Hash]:
    combined = COMBINED_OIDS.get(sign_oid)
    if combined is not None:
        if named not in (None, combined[1]):
            raise RakkanError(Code.HASH_ALGORITHM_REFUSED, f"{named} contradicts {sign_oid}")
        return combined
    bare = _BARE.get(sign_oid)
    if bare is None:
        raise RakkanError(Code.SIGN_ALGORITHM_REFUSED, sign_oid if _OID.fullmatch(sign_oid) else "not an OID")
    if named is None:
        raise RakkanError(Code.HASH_ALGORITHM_REQUIRED, f"{sign_oid} does not name a hash")
    return bare, named


def _pss(named: Hash | None, parameters: bytes | None) -> SignatureAlgorithm:
    if parameters is None:
        raise RakkanError(Code.SIGN_PARAMETERS_REFUSED, "RSASSA-PSS without parameters means SHA-1")
    hash_, salt_bytes = _read_pss(parameters)
    if named not in (None, hash_):
        raise RakkanError(Code.HASH_ALGORITHM_REFUSED, f"{named} contradicts {hash_} in the parameters")
    return SignatureAlgorithm(Scheme.RSA_PSS, hash_, salt_bytes)


def _read_pss(parameters: bytes) -> tuple[Hash, int]:
    """Hash and salt length of RSASSA-PSS-params (RFC 4055 3.1): MGF1 with the same hash, trailer 1."""
    try:
        read = RSASSAPSSParams.load(parameters, strict=True)
        hash_oid = read["hash_algorithm"]["algorithm"].dotted
        mask_oid = read["mask_gen_algorithm"]["algorithm"].dotted
        mask_hash_oid = read["mask_gen_algorithm"]["parameters"]["algorithm"].dotted
        salt_bytes = read["salt_length"].native
        trailer = read["trailer_field"].contents
    except (ValueError, TypeError, KeyError, AttributeError, IndexError):
        raise RakkanError(Code.SIGN_PARAMETERS_REFUSED, "not DER RSASSA-PSS-params") from None
    hash_ = HASH_BY_OID.get(hash_oid)
    if hash_ is None:
        raise RakkanError(Code.SIGN_PARAMETERS_REFUSED, f"hash {hash_oid}")
    if mask_oid != _MGF1_OID or mask_hash_oid != hash_oid:
        raise RakkanError(Code.SIGN_PARAMETERS_REFUSED, "the mask must be MGF1 with the same hash")
    if trailer != b"\x01":
        raise RakkanError(Code.SIGN_PARAMETERS_REFUSED, "the trailer must be 1")
    if not isinstance(salt_bytes, int) or not 0 <= salt_bytes <= _SALT_BYTES_MAX:
        raise RakkanError(Code.SIGN_PARAMETERS_REFUSED, "salt length out of bounds")
    return hash_, salt_bytes


def pss_parameters(hash_: Hash) -> bytes:
    """The parameters most clients mean: MGF1 with the same hash, a salt as long as the digest. For `info`."""
    algorithm = {"algorithm": hash_.value}
    return bytes(
        RSASSAPSSParams(
            {
                "hash_algorithm": algorithm,
                "mask_gen_algorithm": {"algorithm": "mgf1", "parameters": algorithm},
                "salt_length": hash_.digest_bytes,
            }
        ).dump()
    )
