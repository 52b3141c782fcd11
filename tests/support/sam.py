"""A SAM with its real store on a real PostgreSQL, beside an SVG and a token that keep their secrets in memory."""

import hashlib
import hmac
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pyotp
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from services.sam.access import Access
from services.sam.activating import Activator
from services.sam.evidence import RelyingParty
from services.sam.handlers.approving import ApprovingHandlers
from services.sam.handlers.authenticators import AuthenticatorHandlers
from services.sam.handlers.changing import ChangingHandlers
from services.sam.handlers.creating import CreatingHandlers
from services.sam.handlers.ending import EndingHandlers
from services.sam.handlers.enrolling import EnrollingHandlers
from services.sam.handlers.ordering import OrderingHandlers
from services.sam.handlers.reading import ReadingHandlers
from services.sam.handlers.signing import SigningHandlers
from services.sam.handlers.verifying import FactorVerifier
from services.sam.rows import Credential, RowSeal, State
from services.sam.settings import Authorizations, Factors, WebAuthn
from services.sam.store import Store
from services.sam.token import SAMToken
from shared.activation import Activation, Use, read_activation
from shared.algorithms import KeyAlgorithm, Profile
from shared.audit import AuditWriter
from shared.contracts.base import Message
from shared.contracts.svg import DestroyKey, GenerateKey, KeyDestroyed, KeyGenerated, SignatureValues, SignDigests
from shared.database import Pool
from shared.errors import Code, RakkanError
from shared.registry import CertificationAuthority, Registry
from shared.sealing import Secrets, seal, unseal
from shared.tokens import AccessToken, TokenReader, verifying_keys, write_token
from shared.trust import Purpose, SigningKey, Trust, key_id_of
from tests.support.certificates import pem, spki

PIN = "739154"
EPOCH = 1
RP_ID = "sign.example.com"
ORIGIN = f"https://{RP_ID}"


def new_signing_key() -> SigningKey:
    key = Ed25519PrivateKey.generate()
    return SigningKey(key_id_of(key.public_key()), key)


class Clock:
    def __init__(self) -> None:
        self.passed = timedelta()

    def now(self) -> datetime:
        return datetime.now(UTC) + self.passed

    def pass_s(self, seconds: float) -> None:
        self.passed += timedelta(seconds=seconds)


class MemoryToken:
    """HMACs as the HSM makes them, with a key that is not in an HSM."""

    def __init__(self) -> None:
        self.key = os.urandom(32)
        self.macs = 0

    async def mac(self, label: str, data: bytes) -> bytes:
        self.macs += 1
        return hmac.digest(self.key, label.encode() + b"\0" + data, "sha256")


@dataclass
class FakeSVG:
    """Obeys good activations, once each, and returns recorded values when asked again. Requests it signs for real."""

    trust: Trust
    sealing_key: X25519PrivateKey
    now: Callable[[], datetime]
    made: list[ec.EllipticCurvePrivateKey] = field(default_factory=list)
    """Keys to hand out, before it makes its own."""
    keys: dict[str, ec.EllipticCurvePrivateKey] = field(default_factory=dict)
    recorded: dict[str, tuple[bytes, ...]] = field(default_factory=dict)
    activations: list[Activation] = field(default_factory=list)
    failure: RakkanError | None = None

    async def ask(self, request: Message) -> SignatureValues | KeyGenerated | KeyDestroyed:
        if self.failure is not None:
            raise self.failure
        match request:
            case SignDigests():
                activation = self._read(request.activation)
                self._share(request.share, SignDigests.TYPE, activation)
                values = tuple(self._value(activation, digest) for digest in activation.digests)
                return SignatureValues(values=self.recorded.setdefault(activation.operation_id, values))
            case GenerateKey():
                activation = self._read(request.activation)
                self._share(request.share, GenerateKey.TYPE, activation)
                if activation.key_id not in self.keys:
                    self.keys[activation.key_id] = (
                        self.made.pop(0) if self.made else ec.generate_private_key(ec.SECP256R1())
                    )
                key = self.keys[activation.key_id]
                return KeyGenerated(key_id=activation.key_id, algorithm=activation.key_algorithm, public_key=spki(key))
            case DestroyKey():
                activation = self._read(request.activation)
                if self.keys.pop(activation.key_id, None) is None:
                    raise RakkanError(Code.KEY_UNKNOWN)
                return KeyDestroyed(key_id=activation.key_id, audit_reference=activation.operation_id)
            case _:
                raise RakkanError(Code.FORBIDDEN, request.TYPE)

    def _value(self, activation: Activation, digest: bytes) -> bytes:
        if activation.use is Use.CSR:
            return self.keys[activation.key_id].sign(digest, ec.ECDSA(Prehashed(hashes.SHA256())))
        return hashlib.sha512(os.urandom(8) + digest).digest()

    def _read(self, token: bytes) -> Activation:
        activation = read_activation(token, self.trust, now=self.now())
        self.activations.append(activation)
        return activation

    def _share(self, sealed: bytes, message: str, activation: Activation) -> None:
        opened = unseal(sealed, key=self.sealing_key, message=message, subject=activation.operation_id)
        if opened.share is None:
            raise RakkanError(Code.ACTIVATION_REFUSED, "no share")


@dataclass
class FakeRegistry:
    """A registry that tests change as they go."""

    authorities: dict[str, CertificationAuthority] = field(default_factory=dict)

    @property
    def current(self) -> Registry:
        return Registry(version=1, certification_authorities=self.authorities)

    def add(self, name: str, *anchors: x509.Certificate, **changes: Any) -> None:
        """One whose only profile, `signing`, takes what `tests.support.certificates.issue` makes."""
        members: dict[str, Any] = {
            "label": f"CA {name}",
            "protocol": "local",
            "anchors": [pem(anchor) for anchor in anchors],
            "profiles": {"signing": SIGNING},
            "default_profile": "signing",
        }
        self.authorities[name] = CertificationAuthority.model_validate(members | changes)


SIGNING: dict[str, Any] = {"label": "Signing", "key_algorithms": ["p256", "p384", "rsa2048"]}


class SAMUnderTest:
    """Everything wired as `services.sam.__main__` wires it, and the means to speak to it as the gateway would."""

    def __init__(
        self,
        pool: Pool,
        audit: AuditWriter,
        row_key: bytes,
        token: MemoryToken,
    ) -> None:
        self.clock = Clock()
        self.token = token
        self.pool = pool
        self.keys = {room: X25519PrivateKey.generate() for room in ("sam", "svg", "gateway", "operator")}
        self.tokens_key, activations_key = new_signing_key(), new_signing_key()
        self.trust = Trust(
            EPOCH,
            {
                ("authentication", Purpose.TOKENS): {self.tokens_key.key_id: self.tokens_key.key.public_key()},
                ("sam", Purpose.ACTIVATIONS): {activations_key.key_id: activations_key.key.public_key()},
            },
            {room: key.public_key() for room, key in self.keys.items()},
        )
        self.seal = RowSeal(row_key)
        self.store = Store(pool, self.seal)
        self.svg = FakeSVG(self.trust, self.keys["svg"], self.clock.now)
        self.registry = FakeRegistry()
        self.registry.add("local")
        self.factors, limits = Factors(), Authorizations(waiting_max_per_credential=20)
        now = self.clock.now
        access = Access(self.store, self.keys["sam"], TokenReader(verifying_keys(self.trust)))
        verifier = FactorVerifier(self.store, SAMToken(token), self.seal, audit, self.factors, now)
        activator = Activator(activations_key, self.seal, self.keys["svg"].public_key(), EPOCH, now)
        self.signing = SigningHandlers(
            self.store,
            access,
            verifier,
            activator,
            self.svg,  # type: ignore[arg-type]  # a fake by shape
            audit,
            self.keys["gateway"].public_key(),
            limits,
            EPOCH,
            now,
        )
        self.reading = ReadingHandlers(self.store, access, now)
        self.enrolling = EnrollingHandlers(
            self.store,
            verifier,
            activator,
            self.seal,
            audit,
            self.keys["sam"],
            self.keys["operator"].public_key(),
            self.registry,
            self.factors,
            now,
        )
        self.ordering = OrderingHandlers(
            self.store,
            activator,
            self.svg,  # type: ignore[arg-type]  # a fake by shape
            audit,
            self.registry,
            now,
        )
        self.creating = CreatingHandlers(self.store, access, activator, audit, self.registry, now)
        self.changing = ChangingHandlers(self.store, access, self.ordering, audit, now)
        self.ending = EndingHandlers(
            self.store,
            verifier,
            activator,
            self.svg,  # type: ignore[arg-type]  # a fake by shape
            audit,
            self.keys["sam"],
            self.registry,
            self.factors,
            now,
        )

        self.rules = WebAuthn(rp_id=RP_ID, origins=(ORIGIN,))
        self.party = RelyingParty(RP_ID, (ORIGIN,), allow_backed_up=True)
        self.approving = ApprovingHandlers(self.store, audit, self.party, self.rules, limits, EPOCH, now)
        self.authenticators = AuthenticatorHandlers(
            self.store, audit, self.party, self.rules, self.keys["sam"], self.keys["operator"].public_key(), now
        )

    def access_token(self, *, tenant: str = "acme", client: str = "partner", **changes: object) -> str:
        now = self.clock.now()
        token = AccessToken(
            os.urandom(8).hex(), "https://auth", client, tenant, "service", now, now + timedelta(seconds=3600)
        )
        return write_token(replace(token, **changes), self.tokens_key)  # type: ignore[arg-type]  # named fields

    def sealed(self, message: type[Message], subject: str, **secrets: str | None) -> bytes:
        secrets.setdefault("access_token", self.access_token())
        return seal(Secrets.of(**secrets), to=self.keys["sam"].public_key(), message=message.TYPE, subject=subject)

    def open_sad(self, sealed: bytes, message: type[Message], subject: str) -> str:
        opened = unseal(sealed, key=self.keys["gateway"], message=message.TYPE, subject=subject)
        assert opened.sad is not None
        return opened.sad.get_secret_value()

    def totp(self, secret: str) -> str:
        return pyotp.TOTP(secret).at(self.clock.now())

    async def add_credential(self, signer_id: str, **changes: object) -> Credential:
        """An active credential as enrollment would leave it, of a signer that exists."""
        key_id = os.urandom(16).hex()
        row = Credential(
            credential_id=f"cred-{key_id[:8]}",
            signer_id=signer_id,
            tenant_id="acme",
            description="contracts",
            key_algorithm=KeyAlgorithm.P256,
            profile=Profile.EU,
            authority="local",
            otp_required=False,
            hashes_required=False,
            signatures_max=10,
            state=State.ACTIVE,
            reason=None,
            key_id=key_id,
            share=self.seal.conceal(b"s" * 32, subject=key_id),
            public_key=b"public key",
            order_id=None,
            chain=(b"certificate",),
            certificate_status="valid",
            not_after=self.clock.now() + timedelta(days=365),
            version=1,
        )
        row = replace(row, **changes)  # type: ignore[arg-type]  # named fields
        async with self.store.transaction() as connection:
            assert await self.store.add_credential(connection, row)
        return row
