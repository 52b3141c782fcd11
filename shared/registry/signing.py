"""Who must have signed a registry: officers, each with a key of her own in the trust bundle. Rules only, no I/O.

A change needs as many of them as the bundle says, two unless it is a development stack (requirement of two persons).
The signature covers the file's bytes as they are, so what an officer has read is what she has signed.
"""

import base64
import binascii
import json
from typing import Annotated

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from shared.errors import Code, RakkanError
from shared.registry.model import Registry
from shared.trust import RegistryOfficers, key_id_of

_CONTEXT = b"rakkan registry v1\x00"
_SIGNATURES_MAX = 20
BYTES_MAX = 4_194_304


class Signature(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    key_id: str = Field(max_length=64)
    signature: str = Field(max_length=100)
    """Ed25519 over the context and the file's bytes, in base64."""


_SIGNATURES = TypeAdapter(Annotated[list[Signature], Field(max_length=_SIGNATURES_MAX)])


def sign(content: bytes, key: Ed25519PrivateKey, signatures: bytes = b"[]") -> bytes:
    """The signatures file with one more in it; a former one of the same key is replaced."""
    key_id = key_id_of(key.public_key())
    others = [one for one in _read_signatures(signatures) if one.key_id != key_id]
    value = base64.b64encode(key.sign(_CONTEXT + content)).decode()
    all_of_them = [*others, Signature(key_id=key_id, signature=value)]
    return json.dumps([one.model_dump() for one in all_of_them], indent=2).encode() + b"\n"


def read_registry(content: bytes, signatures: bytes, officers: RegistryOfficers) -> Registry:
    """The registry, once enough officers have signed exactly these bytes. Raises FORBIDDEN or MALFORMED."""
    signed_by = signers_of(content, signatures, officers)
    if len(signed_by) < officers.signatures_min:
        raise RakkanError(
            Code.FORBIDDEN,
            f"the registry is signed by {len(signed_by)} of its officers and needs {officers.signatures_min}",
        )
    return check_registry(content)


def signers_of(content: bytes, signatures: bytes, officers: RegistryOfficers) -> frozenset[str]:
    """The names of the officers who have signed exactly these bytes."""
    return frozenset(
        officers.names[one.key_id]
        for one in _read_signatures(signatures)
        if one.key_id in officers.keys and _verifies(content, one, officers)
    )


def check_registry(content: bytes) -> Registry:
    """What the bytes say, whoever signed them. Raises MALFORMED, naming what is wrong."""
    if len(content) > BYTES_MAX:
        raise RakkanError(Code.MALFORMED, f"the registry has more than {BYTES_MAX} bytes")
    try:
        return Registry.model_validate_json(content)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'registry'}: {e['msg']}" for e in error.errors()[:10])
        raise RakkanError(Code.MALFORMED, f"the registry is wrong: {faults}") from None


def _read_signatures(signatures: bytes) -> list[Signature]:
    try:
        return _SIGNATURES.validate_json(signatures)
    except ValidationError:
        raise RakkanError(Code.MALFORMED, "the registry's signatures file is no list of signatures") from None


def _verifies(content: bytes, one: Signature, officers: RegistryOfficers) -> bool:
    try:
        officers.keys[one.key_id].verify(base64.b64decode(one.signature, validate=True), _CONTEXT + content)
    except (InvalidSignature, binascii.Error, ValueError):
        return False
    return True
