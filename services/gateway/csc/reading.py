"""What both versions read alike, with the names of each handed in. The two façades are thin because of this file."""

import re
from dataclasses import dataclass

from services.gateway.csc.algorithms import read_algorithm, read_hash
from services.gateway.csc.encoding import decode_base64, decode_hex
from services.gateway.csc.model import Authorize, DescribeCredential, Extend, Shape, SignHash, Timestamp
from services.gateway.csc.parameters import Parameters, refuse
from shared.algorithms import PSS_OID, Hash, check_digest
from shared.errors import Code, RakkanError

CREDENTIAL_ID_MAX = 255
DESCRIPTION_MAX = 500
SECRET_MAX = 1024
SAD_MAX = 4096
"""v1 clients hand in the access token of an authorization as their SAD."""
CLIENT_DATA_MAX = 65_536
NONCE_BYTES_MAX = 32
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
"""What a CA or a TSA of the registry can be called."""
_OID_MAX = 128
_OID = re.compile(r"[0-2](\.(0|[1-9][0-9]*))+")
_AUTHORITY_MAX = 63
_DIGEST_BYTES = frozenset(hash_.digest_bytes for hash_ in Hash)


@dataclass(frozen=True, slots=True)
class Hashes:
    """The hashes of a request as they came: which name carried them, and the OID beside them."""

    digests: tuple[bytes, ...] | None
    oid: str | None


def credential_id(parameters: Parameters) -> str:
    return parameters.string("credentialID", most=CREDENTIAL_ID_MAX)


def client_data(parameters: Parameters) -> None:
    """Opaque to us and possibly sensitive: its type is checked and that is all that is done with it."""
    value = parameters.raw("clientData")
    if value is not None and (not isinstance(value, str) or len(value) > CLIENT_DATA_MAX):
        refuse("Invalid parameter clientData")


def shape(parameters: Parameters) -> Shape:
    certificates = parameters.raw("certificates")
    if certificates not in (None, "none", "single", "chain"):
        refuse("Invalid parameter certificates")
    return Shape(
        certificates=certificates or "single",
        certificate_info=parameters.boolean("certInfo"),
        authorization_info=parameters.boolean("authInfo"),
    )


def describe(parameters: Parameters) -> DescribeCredential:
    """credentials/info (CSC 11.5)."""
    call = DescribeCredential(credential_id(parameters), shape(parameters))
    parameters.optional_string("lang", most=64)
    client_data(parameters)
    return call


def hash_oid(parameters: Parameters, name: str) -> str | None:
    return parameters.typed_string(name, most=_OID_MAX)


def bound_hashes(hashes: Hashes) -> tuple[tuple[bytes, ...] | None, Hash | None]:
    """Hashes for an authorization: of the length of their OID, or of any hash we know where v1 names none."""
    if hashes.digests is None:
        return None, None
    hash_ = read_hash(hashes.oid) if hashes.oid is not None else None
    lengths = _DIGEST_BYTES if hash_ is None else {hash_.digest_bytes}
    if any(len(digest) not in lengths for digest in hashes.digests):
        raise RakkanError(Code.DIGEST_LENGTH)
    return hashes.digests, hash_


def authorize(
    parameters: Parameters, *, credential: str, signatures: int, hashes: Hashes, pin: str | None, otp: str | None
) -> Authorize:
    """credentials/authorize (CSC 11.6), after what the versions read differently."""
    digests, hash_ = bound_hashes(hashes)
    if digests is not None and len(digests) > signatures:
        refuse("Invalid value for parameter numSignatures")
    description = parameters.optional_string("description", most=DESCRIPTION_MAX)
    client_data(parameters)
    return Authorize(credential, signatures, digests, hash_, pin, otp, description)


def sad(parameters: Parameters) -> str:
    return parameters.string("SAD", most=SAD_MAX)


def extend(parameters: Parameters, *, credential: str, hashes: Hashes) -> Extend:
    """credentials/extendTransaction (CSC 11.8)."""
    current = sad(parameters)
    digests, hash_ = bound_hashes(hashes)
    client_data(parameters)
    return Extend(credential, current, digests, hash_)


def sign_hash(
    parameters: Parameters, *, sad_text: str | None, credential: str, digests: tuple[bytes, ...], oid: str
) -> SignHash:
    """signatures/signHash (CSC 11.9), from signAlgo on; `oid` is the name of the hash OID in this request."""
    sign_oid = parameters.string("signAlgo", most=_OID_MAX)
    algorithm_parameters = parameters.base64("signAlgoParams")
    if sign_oid == PSS_OID and algorithm_parameters is None:
        # Their default is SHA-1 (RFC 4055 3.1), which nobody may sign with: they must be there.
        refuse("Missing (or invalid type) string parameter signAlgoParams")
    named = hash_oid(parameters, oid)
    algorithm = read_algorithm(sign_oid, named, algorithm_parameters)
    client_data(parameters)
    for digest in digests:
        check_digest(algorithm, digest)
    return SignHash(credential, sad_text, digests, algorithm)


def timestamp(parameters: Parameters, *, extension: bool) -> Timestamp:
    """signatures/timestamp (CSC 11.10): the names of v1 in both versions, and those of our extension."""
    text = parameters.raw("hash")
    if not isinstance(text, str):
        refuse("Missing (or invalid type) string parameter hash")
    if not text:
        refuse("Empty hash parameter")
    try:
        digest = decode_base64(text)
    except ValueError:
        refuse("Invalid Base64 hash string parameter")
    hash_ = read_hash(parameters.string("hashAlgo", most=_OID_MAX))
    if len(digest) != hash_.digest_bytes:
        refuse("Invalid digest value length")
    nonce = _nonce(parameters.raw("nonce"))
    client_data(parameters)
    if not extension:
        _check_unextended(parameters)
        return Timestamp(digest, hash_, nonce)
    authority = parameters.optional_string("timeStampingAuthority", most=_AUTHORITY_MAX)
    assurance_class = parameters.optional_string("timeStampingClass", most=_AUTHORITY_MAX)
    if authority is not None and assurance_class is not None:
        refuse("Both timeStampingAuthority and timeStampingClass parameters passed")
    policy = object_identifier(parameters, "reqPolicy")
    certificate = not parameters.has("certReq") or parameters.boolean("certReq")
    return Timestamp(digest, hash_, nonce, authority, assurance_class, policy, certificate)


def object_identifier(parameters: Parameters, name: str) -> str | None:
    oid = parameters.typed_string(name, most=_OID_MAX)
    if oid is not None and not _OID.fullmatch(oid):
        refuse(f"Invalid parameter {name}")
    return oid


def _check_unextended(parameters: Parameters) -> None:
    """Whoever names a TSA must not get another one's token without a word: refused where nobody may name one."""
    for name in ("timeStampingAuthority", "timeStampingClass", "reqPolicy", "certReq"):
        if parameters.has(name):
            refuse(f"Invalid parameter {name}")


def _nonce(text: object) -> bytes | None:
    if text is None:
        return None
    if not isinstance(text, str) or len(text) > 2 * NONCE_BYTES_MAX:
        refuse("Invalid parameter nonce")
    try:
        return decode_hex(text)
    except ValueError:
        refuse("Invalid parameter nonce")
