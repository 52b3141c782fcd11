"""What is to be signed, as OAuth carries it: plain CSC parameters of v1 and v2, and authorization_details (RFC 9396).

Rules only. Hashes are compared as bytes: clients write base64 in one step and base64url in the next.
"""

import base64
import binascii
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from services.authentication.changes import Change, read_change
from services.authentication.oauth import Refusal, invalid, missing
from shared.algorithms import HASH_BY_OID, Hash
from shared.contracts.approval import Document

DETAIL_TYPES = ("credential", "https://cloudsignatureconsortium.org/2025/credential")
"""The spellings of CSC API 2.0 and 2.2."""
DOCUMENTS_MAX = 1000
TEXT_MAX = 255
_CREDENTIAL_ID_MAX = 255
_HASH_TYPES = ("dtbsr", "sdr", "sodr")
_BY_LENGTH = {hash_.digest_bytes: hash_ for hash_ in (Hash.SHA256, Hash.SHA384, Hash.SHA512)}
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]+={0,2}")
# C0, C1, and what turns the direction of the text around it: a label must not rewrite the page it is shown on.
_DECEIVING = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


@dataclass(frozen=True)
class Signing:
    """What a client wants signed with one credential."""

    credential_id: str | None
    qualifier: str | None
    signatures: int
    documents: tuple[Document, ...]
    hash: Hash


def read_parameters(form: Mapping[str, str]) -> Signing:
    """The plain parameters (CSC API 8.4.2): `hash` as v1 has it, `hashes` with hashAlgorithmOID as v2 has it."""
    if "hash" in form and "hashes" in form:
        raise invalid("hashes")
    name = "hash" if "hash" in form else "hashes"
    if name not in form:
        # Without hashes an authorization would cover whatever comes: none is given here.
        raise missing("hashes")
    digests = tuple(decode_digest(text, name) for text in _split(form[name], name))
    oid = form.get("hashAlgorithmOID")
    if oid is None and name == "hashes":
        raise missing("hashAlgorithmOID")
    # v1 has no way to name the algorithm here.
    hash_ = _BY_LENGTH.get(len(digests[0])) if oid is None else HASH_BY_OID.get(oid)
    if hash_ is None:
        raise invalid("hashAlgorithmOID" if oid else name)
    if any(len(digest) != hash_.digest_bytes for digest in digests):
        raise invalid(name)
    signatures = form.get("numSignatures", str(len(digests)))
    if not re.fullmatch(r"[0-9]{1,6}", signatures) or int(signatures) != len(digests):
        raise invalid("numSignatures")
    return Signing(
        credential_id=check_text(form.get("credentialID"), "credentialID", _CREDENTIAL_ID_MAX),
        qualifier=check_text(form.get("signatureQualifier"), "signatureQualifier", TEXT_MAX),
        signatures=int(signatures),
        documents=tuple(Document(digest=digest) for digest in digests),
        hash=hash_,
    )


def read_details(text: str) -> tuple[Signing | Change, str]:
    """The one element of authorization_details, and it again as it was written, for the echo."""
    try:
        given = json.loads(text, object_pairs_hook=_object_without_doubles, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise _refused("is not JSON") from None
    if not isinstance(given, list) or len(given) != 1 or not isinstance(given[0], dict):
        raise _refused("is not an array of one object")
    detail = given[0]
    change = read_change(detail)
    if change is None and detail.get("type") not in DETAIL_TYPES:
        raise _refused("is of a type that is not supported")
    return change or _signing(detail), json.dumps(detail, ensure_ascii=False, separators=(",", ":"))


def echo(detail: str, credential_id: str | None) -> list[dict[str, Any]]:
    """What the token answer repeats: every member as it came, and the credential that was chosen."""
    return [json.loads(detail) | ({"credentialID": credential_id} if credential_id is not None else {})]


def decode_digest(text: str, name: str) -> bytes:
    """base64 or base64url, padded or not."""
    bare = text.rstrip("=").translate({ord("-"): "+", ord("_"): "/"})
    if not _BASE64.fullmatch(text):
        raise invalid(name)
    try:
        return base64.b64decode(bare + "=" * (-len(bare) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise invalid(name) from None


def check_text(text: str | None, name: str, chars_max: int) -> str | None:
    """A text that may be shown: within its length, and without what would rewrite the page around it."""
    if text is not None and (len(text) > chars_max or _DECEIVING.search(text)):
        raise invalid(name)
    return text


def _signing(detail: dict[str, Any]) -> Signing:
    if detail.get("locations") is not None and not isinstance(detail["locations"], list):
        raise _refused("has locations that are no array")
    given = detail.get("documentDigests")
    if not isinstance(given, list) or not 1 <= len(given) <= DOCUMENTS_MAX:
        raise _refused(f"needs documentDigests, 1 to {DOCUMENTS_MAX} of them")
    oid = detail.get("hashAlgorithmOID")
    hash_ = HASH_BY_OID.get(oid) if isinstance(oid, str) else None
    if hash_ is None:
        raise _refused("needs a hashAlgorithmOID that is supported")
    documents = tuple(_document(one, hash_) for one in given)
    signatures = detail.get("numSignatures")
    if signatures is None and detail["type"] == DETAIL_TYPES[0]:
        signatures = len(documents)
    if isinstance(signatures, bool) or not isinstance(signatures, int) or signatures != len(documents):
        raise _refused("needs a numSignatures that equals the number of documentDigests")
    return Signing(
        credential_id=_text(detail, "credentialID", _CREDENTIAL_ID_MAX),
        qualifier=_text(detail, "signatureQualifier", TEXT_MAX),
        signatures=signatures,
        documents=documents,
        hash=hash_,
    )


def _document(given: Any, hash_: Hash) -> Document:
    if not isinstance(given, dict) or not isinstance(given.get("hash"), str):
        raise _refused("has a document digest without hash")
    hash_type = given.get("hashType") or _HASH_TYPES[0]
    if not isinstance(hash_type, str) or hash_type.lower() not in _HASH_TYPES:
        raise _refused("has a hashType that is not supported")
    try:
        digest = decode_digest(given["hash"], "hash")
    except Refusal:
        raise _refused("has a hash that is not base64") from None
    if len(digest) != hash_.digest_bytes:
        raise _refused("has a hash whose length is not its algorithm's")
    return Document(digest=digest, label=_text(given, "label", TEXT_MAX) or "")


def _text(detail: dict[str, Any], name: str, chars_max: int) -> str | None:
    value = detail.get(name)
    if value is None:
        return None
    if not isinstance(value, str):
        raise _refused(f"has a {name} that is no text")
    try:
        return check_text(value, name, chars_max) or None
    except Refusal:
        raise _refused(f"has a {name} that is too long, or that holds control characters") from None


def _split(text: str, name: str) -> list[str]:
    parts = text.split(",")
    if len(parts) > DOCUMENTS_MAX:
        raise invalid(name)
    return parts


def _object_without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member is there twice")
    return members


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _refused(why: str) -> Refusal:
    return Refusal("invalid_authorization_details", f"authorization_details {why}")
