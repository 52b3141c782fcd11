"""Authenticators in software: a passkey and a device key that answer as real ones do, and lie when told."""

import base64
import hashlib
import json
import os
from dataclasses import dataclass, field
from typing import Any

import cbor2
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from shared.contracts.approval import DeviceSignature, PasskeyAssertion

PrivateKey = ec.EllipticCurvePrivateKey | Ed25519PrivateKey | rsa.RSAPrivateKey


@dataclass(frozen=True, kw_only=True)
class Lies:
    """What to say in place of the truth."""

    type: str | None = None
    origin: str | None = None
    members: dict[str, Any] = field(default_factory=dict)
    """More members of clientDataJSON."""
    client_data_json: bytes | None = None
    rp_id: str | None = None
    up: bool = True
    uv: bool = True
    be: bool | None = None
    bs: bool | None = None
    counter: int | None = None
    credential_id: bytes | None = None
    user_handle: bytes | None = None
    key: PrivateKey | None = None
    signature: bytes | None = None
    fmt: str = "none"


HONEST = Lies()


@dataclass
class Passkey:
    """One WebAuthn credential. `counts` is False for those that keep their counter at zero."""

    rp_id: str
    origin: str
    key: PrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    credential_id: bytes = field(default_factory=lambda: os.urandom(32))
    user_handle: bytes | None = None
    synced: bool = False
    counts: bool = True
    counter: int = 0

    def register(self, challenge: bytes, lies: Lies = HONEST) -> dict[str, bytes]:
        """What `navigator.credentials.create` returns, as `AddAuthenticator` wants it."""
        client_data = self._client_data("webauthn.create", challenge, lies)
        attested = bytes(16) + len(self.credential_id).to_bytes(2, "big") + self.credential_id + self.cose_key()
        data = self._authenticator_data(lies, attested=attested)
        statement: dict[str, Any] = {}
        if lies.fmt == "packed":
            signature = lies.signature or _sign(lies.key or self.key, data + hashlib.sha256(client_data).digest())
            statement = {"alg": _cose_algorithm(self.key), "sig": signature}
        attestation = cbor2.dumps({"fmt": lies.fmt, "attStmt": statement, "authData": data})
        return {"client_data_json": client_data, "attestation_object": attestation}

    def answer(self, challenge: bytes, lies: Lies = HONEST) -> PasskeyAssertion:
        """What `navigator.credentials.get` returns."""
        if self.counts:
            self.counter += 1
        client_data = self._client_data("webauthn.get", challenge, lies)
        data = self._authenticator_data(lies)
        signature = lies.signature or _sign(lies.key or self.key, data + hashlib.sha256(client_data).digest())
        return PasskeyAssertion(
            credential_id=lies.credential_id or self.credential_id,
            client_data_json=client_data,
            authenticator_data=data,
            signature=signature,
            user_handle=lies.user_handle or self.user_handle,
        )

    def cose_key(self) -> bytes:
        match self.key:
            case ec.EllipticCurvePrivateKey():
                numbers = self.key.public_key().public_numbers()
                return cbor2.dumps(
                    {1: 2, 3: -7, -1: 1, -2: numbers.x.to_bytes(32, "big"), -3: numbers.y.to_bytes(32, "big")}
                )
            case Ed25519PrivateKey():
                return cbor2.dumps({1: 1, 3: -8, -1: 6, -2: self.key.public_key().public_bytes_raw()})
            case rsa.RSAPrivateKey():
                public = self.key.public_key().public_numbers()
                modulus = public.n.to_bytes(self.key.key_size // 8, "big")
                return cbor2.dumps({1: 3, 3: -257, -1: modulus, -2: public.e.to_bytes(3, "big")})

    def _client_data(self, type_: str, challenge: bytes, lies: Lies) -> bytes:
        if lies.client_data_json is not None:
            return lies.client_data_json
        said = {
            "type": lies.type or type_,
            "challenge": base64.urlsafe_b64encode(challenge).decode().rstrip("="),
            "origin": lies.origin or self.origin,
            "crossOrigin": False,
        }
        return json.dumps(said | lies.members).encode()

    def _authenticator_data(self, lies: Lies, *, attested: bytes = b"") -> bytes:
        eligible = self.synced if lies.be is None else lies.be
        backed_up = self.synced if lies.bs is None else lies.bs
        flags = lies.up << 0 | lies.uv << 2 | eligible << 3 | backed_up << 4 | bool(attested) << 6
        counter = self.counter if lies.counter is None else lies.counter
        rp_id_hash = hashlib.sha256((lies.rp_id or self.rp_id).encode()).digest()
        return rp_id_hash + bytes([flags]) + counter.to_bytes(4, "big") + attested


@dataclass
class DeviceKey:
    """A signer's own app: reads the context it is given, and signs it. The reference for other apps."""

    key: ec.EllipticCurvePrivateKey | Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    key_id: str = ""
    """What the SAM called it when it was enrolled."""

    @property
    def public_key(self) -> bytes:
        return self.key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    def prove(self, challenge: bytes) -> bytes:
        return _sign(self.key, challenge)

    def approve(self, context: bytes, *, expected: tuple[bytes, ...]) -> DeviceSignature:
        """Sign a context only when its digests are those the app computed from the documents by itself."""
        fields = read_fields(context)
        if fields[0] != b"rakkan-context/1" or tuple(fields[10:-1:2]) != expected:
            raise ValueError("not the documents that were read")
        return DeviceSignature(key_id=self.key_id, signature=_sign(self.key, context))


def read_fields(context: bytes) -> list[bytes]:
    """The fields of a context, each after its length in 4 bytes: an app needs no more to read one."""
    fields = []
    while context:
        length = int.from_bytes(context[:4], "big")
        fields.append(context[4 : 4 + length])
        context = context[4 + length :]
    return fields


def _sign(key: PrivateKey, data: bytes) -> bytes:
    match key:
        case ec.EllipticCurvePrivateKey():
            return key.sign(data, ec.ECDSA(hashes.SHA256()))
        case Ed25519PrivateKey():
            return key.sign(data)
        case rsa.RSAPrivateKey():
            return key.sign(data, padding.PKCS1v15(), hashes.SHA256())


def _cose_algorithm(key: PrivateKey) -> int:
    match key:
        case ec.EllipticCurvePrivateKey():
            return -7
        case Ed25519PrivateKey():
            return -8
        case rsa.RSAPrivateKey():
            return -257
