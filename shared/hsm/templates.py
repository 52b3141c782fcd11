"""Key templates, checked before they reach the library. Knows attributes; opens no session.

python-pkcs11 0.10 frees uninitialised memory when a template holds a value it cannot pack, so a wrong template is a
crash and not an exception. `checked` packs every value first.
"""

import ctypes
import struct
from collections.abc import Mapping, Sequence
from typing import Any

from asn1crypto import core
from pkcs11 import Attribute, KeyType, Mechanism, MechanismFlag
from pkcs11.attributes import AttributeMapper
from pkcs11.constants import DEFAULT

from shared.algorithms import Family, KeyAlgorithm

Template = Mapping[Attribute, Any]

CAPABILITIES_SIGN = MechanismFlag.SIGN | MechanismFlag.VERIFY

UNWRAPPED: Template = {
    Attribute.TOKEN: False,
    Attribute.SENSITIVE: True,
    Attribute.EXTRACTABLE: False,
    Attribute.SIGN: True,
    Attribute.DECRYPT: False,
    Attribute.UNWRAP: False,
    Attribute.DERIVE: False,
}
"""What every unwrapped key is. The KEK carries it, so the HSM refuses any other."""

UNWRAP_REQUEST: Template = {
    **UNWRAPPED,
    Attribute.PRIVATE: True,
    # The library adds these three, which no private key has.
    Attribute.ENCRYPT: DEFAULT,
    Attribute.VERIFY: DEFAULT,
    Attribute.WRAP: DEFAULT,
}

TO_BE_WRAPPED: Template = {
    Attribute.TOKEN: False,
    Attribute.SENSITIVE: True,
    Attribute.EXTRACTABLE: True,
    # Only a key the security officer trusts can take it out.
    Attribute.WRAP_WITH_TRUSTED: True,
    Attribute.DERIVE: False,
}

RESIDENT: Template = {
    Attribute.SENSITIVE: True,
    Attribute.EXTRACTABLE: False,
    Attribute.DERIVE: False,
}
"""Keys that never leave the token in any form."""

KEK: Template = {
    Attribute.SENSITIVE: True,
    Attribute.EXTRACTABLE: False,
    Attribute.TRUSTED: True,
    Attribute.ALLOWED_MECHANISMS: (Mechanism.AES_KEY_WRAP_PAD,),
    Attribute.UNWRAP_TEMPLATE: UNWRAPPED,
}

MAC_KEY: Template = {
    Attribute.SENSITIVE: True,
    Attribute.EXTRACTABLE: False,
    Attribute.ALLOWED_MECHANISMS: (Mechanism.SHA256_HMAC,),
}

KEY_TYPES = {Family.EC: KeyType.EC, Family.RSA: KeyType.RSA, Family.ED25519: KeyType.EC_EDWARDS}
GENERATE = {
    Family.EC: Mechanism.EC_KEY_PAIR_GEN,
    Family.RSA: Mechanism.RSA_PKCS_KEY_PAIR_GEN,
    Family.ED25519: Mechanism.EC_EDWARDS_KEY_PAIR_GEN,
}


class _Attribute(ctypes.Structure):
    _fields_ = (("type", ctypes.c_ulong), ("value", ctypes.c_void_p), ("length", ctypes.c_ulong))


class Mapper(AttributeMapper):
    """The library's mapper with the two attributes it lacks."""

    def __init__(self) -> None:
        super().__init__()
        self._kept: list[ctypes.Array[Any]] = []
        self.register_handler(Attribute.ALLOWED_MECHANISMS, _pack_mechanisms, _unpack_mechanisms)
        self.register_handler(Attribute.UNWRAP_TEMPLATE, self._pack_template, bytes)

    def _pack_template(self, template: Template) -> bytes:
        # The array points at these buffers: they must outlive the call, so they are kept as long as the session.
        array = (_Attribute * len(template))()
        for place, (attribute, value) in enumerate(template.items()):
            packed = self.pack_attribute(attribute, value)
            buffer = ctypes.create_string_buffer(packed, len(packed))
            self._kept.append(buffer)
            array[place] = _Attribute(int(attribute), ctypes.addressof(buffer), len(packed))
        return bytes(array)

    def checked(self, template: Template) -> dict[Attribute, Any]:
        """The template, or TypeError or ValueError before the library could crash on it."""
        for attribute, value in template.items():
            if value is DEFAULT:
                continue
            try:
                packed = self.pack_attribute(attribute, value)
            except (NotImplementedError, struct.error, AttributeError) as error:
                raise TypeError(f"{attribute!r} cannot hold a {type(value).__name__}") from error
            if not isinstance(packed, bytes):
                raise TypeError(f"{attribute!r} cannot hold a {type(value).__name__}")
        return dict(template)


def public_template(algorithm: KeyAlgorithm) -> dict[Attribute, Any]:
    """What the module must be told of the public half: the curve. RSA sizes go by key length."""
    if algorithm.curve_oid is None:
        return {}
    return {Attribute.EC_PARAMS: core.ObjectIdentifier(algorithm.curve_oid).dump()}


def _pack_mechanisms(mechanisms: Sequence[Mechanism]) -> bytes:
    return struct.pack(f"@{len(mechanisms)}L", *(int(mechanism) for mechanism in mechanisms))


def _unpack_mechanisms(packed: bytes) -> tuple[int, ...]:
    return struct.unpack(f"@{len(packed) // struct.calcsize('@L')}L", packed)
