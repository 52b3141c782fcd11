"""What the CA does in its HSM token: signs certificates and CRLs. Knows no profile and no order.

cryptography builds what is to be signed but calls its key synchronously, and our key answers on another thread. So the
builder signs with a key that only remembers what it was given, and the HSM's signature is put in afterwards.
"""

import hashlib
from typing import Any, NoReturn, Protocol

from asn1crypto import crl as asn1_crl
from asn1crypto import x509 as asn1_x509
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from shared.algorithms import Hash, KeyAlgorithm, Scheme, SignatureAlgorithm
from shared.errors import Code, RakkanError

CA_KEY = "ca-key"
CA_KEY_ALGORITHM = KeyAlgorithm.P384
_ALGORITHM = SignatureAlgorithm(Scheme.ECDSA, Hash.SHA384)
_DER = serialization.Encoding.DER


class Token(Protocol):
    """What is needed of `shared.hsm.Token`."""

    async def sign(self, label: str, algorithm: SignatureAlgorithm, digest: bytes) -> bytes: ...

    async def public_key(self, label: str) -> bytes: ...


class CAKey:
    """The CA's key. Every signature is verified with the public key before it leaves."""

    def __init__(self, token: Token, public_key: ec.EllipticCurvePublicKey) -> None:
        self._token = token
        self.public_key = public_key

    @classmethod
    async def find(cls, token: Token) -> "CAKey":
        """HSM_UNAVAILABLE or KEY_UNKNOWN when the ceremony has not been held."""
        key = serialization.load_der_public_key(await token.public_key(CA_KEY))
        if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
            raise RakkanError(Code.KEY_UNKNOWN, f"the key {CA_KEY} is not on the curve P-384")
        return cls(token, key)

    async def sign_certificate(self, builder: x509.CertificateBuilder) -> x509.Certificate:
        key = _Rememberer(self.public_key)
        draft = asn1_x509.Certificate.load(builder.sign(key, hashes.SHA384()).public_bytes(_DER))
        draft["signature_value"] = await self._sign(key.data)
        return x509.load_der_x509_certificate(draft.dump())

    async def sign_crl(self, builder: x509.CertificateRevocationListBuilder) -> x509.CertificateRevocationList:
        key = _Rememberer(self.public_key)
        draft = asn1_crl.CertificateList.load(builder.sign(key, hashes.SHA384()).public_bytes(_DER))
        draft["signature"] = await self._sign(key.data)
        return x509.load_der_x509_crl(draft.dump())

    async def _sign(self, data: bytes) -> bytes:
        value = await self._token.sign(CA_KEY, _ALGORITHM, hashlib.sha384(data).digest())
        try:
            self.public_key.verify(value, data, ec.ECDSA(hashes.SHA384()))
        except InvalidSignature:
            raise RakkanError(Code.HSM_UNAVAILABLE, "the HSM made a signature that does not verify") from None
        return value


class _Rememberer(ec.EllipticCurvePrivateKey):
    """Stands where a private key is expected, and keeps what it should have signed."""

    def __init__(self, public_key: ec.EllipticCurvePublicKey) -> None:
        self._public_key = public_key
        self.data = b""

    def sign(self, data: Any, signature_algorithm: ec.EllipticCurveSignatureAlgorithm) -> bytes:  # noqa: ARG002 - the interface's
        self.data = bytes(data)
        return b"\0"

    def public_key(self) -> ec.EllipticCurvePublicKey:
        return self._public_key

    @property
    def curve(self) -> ec.EllipticCurve:
        return self._public_key.curve

    @property
    def key_size(self) -> int:
        return self._public_key.key_size

    def exchange(self, *_: Any) -> NoReturn:
        raise _nothing_private()

    def private_numbers(self) -> NoReturn:
        raise _nothing_private()

    def private_bytes(self, *_: Any, **__: Any) -> NoReturn:
        raise _nothing_private()

    def __copy__(self) -> "_Rememberer":
        return self

    def __deepcopy__(self, _: Any) -> "_Rememberer":
        return self


def _nothing_private() -> TypeError:
    return TypeError("the private key is in the HSM")
