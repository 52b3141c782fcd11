"""A gateway with a SAM, an authentication and a TSA connector that live in memory and really sign."""

import base64
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

import httpx
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.x509.oid import NameOID
from joserfc.jwk import KeySet
from pydantic import SecretStr

from services.gateway.app import make_app
from services.gateway.settings import Door, Limits, Settings
from shared.algorithms import KeyAlgorithm, sign_algorithm_oids
from shared.contracts import authentication, issuance, sam, tsa_connector
from shared.contracts.base import Done, Message
from shared.errors import Code, RakkanError
from shared.registry import Registry
from shared.sealing import Secrets, seal, unseal
from shared.settings import Broker, RegistryFiles, TrustFiles
from shared.tokens import AccessToken, read_token, verifying_keys, write_token
from shared.trust import Purpose, SigningKey, Trust, key_id_of
from tests.support.trust_services import registry_of

SHA256 = "2.16.840.1.101.3.4.2.1"
SHA384 = "2.16.840.1.101.3.4.2.2"
SHA1 = "1.3.14.3.2.26"
ECDSA_SHA256 = "1.2.840.10045.4.3.2"
RSA_BARE = "1.2.840.113549.1.1.1"
PSS = "1.2.840.113549.1.1.10"
HASH = hashlib.sha256(b"\xfb\xff a document").digest()

_SHA2: dict[str, hashes.HashAlgorithm] = {
    "sha256": hashes.SHA256(),
    "sha384": hashes.SHA384(),
    "sha512": hashes.SHA512(),
}
_USAGE = x509.KeyUsage(
    digital_signature=True,
    content_commitment=True,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=False,
    crl_sign=False,
    encipher_only=False,
    decipher_only=False,
)
PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey


def b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


@lru_cache
def key_of(algorithm: KeyAlgorithm) -> PrivateKey:
    if algorithm is KeyAlgorithm.P256:
        return ec.generate_private_key(ec.SECP256R1())
    if algorithm is KeyAlgorithm.ED25519:
        return ed25519.Ed25519PrivateKey.generate()
    return rsa.generate_private_key(65537, algorithm.bits)


@lru_cache
def certificate_of(algorithm: KeyAlgorithm) -> bytes:
    key = key_of(algorithm)
    subject = x509.Name(
        [x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Acme"), x509.NameAttribute(NameOID.COMMON_NAME, "Hanako")]
    )
    now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    statements = bytes.fromhex("300a3008060604008e460101")
    policy = x509.PolicyInformation(x509.ObjectIdentifier("0.4.0.194112.1.2"), None)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Issuing CA")]))
        .public_key(key.public_key())
        .serial_number(0xABC)
        .not_valid_before(now)
        .not_valid_after(now.replace(year=2099))
        .add_extension(x509.CertificatePolicies([policy]), critical=False)
        .add_extension(_USAGE, critical=True)
        .add_extension(
            x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.5.5.7.1.3"), statements), critical=False
        )
        .sign(key, None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256())
        .public_bytes(serialization.Encoding.DER)
    )


def credential(name: str, algorithm: KeyAlgorithm = KeyAlgorithm.P256, **changes: Any) -> sam.CredentialFacts:
    facts: dict[str, Any] = {
        "credential_id": name,
        "description": f"Key {name}",
        "enabled": True,
        "key_algorithm": algorithm,
        "sign_algorithms": sign_algorithm_oids(algorithm),
        "certificates": (certificate_of(algorithm), b"issuer"),
        "certificate_status": "valid",
        "assurance": "SCAL1-pin",
        "pin_required": True,
        "otp_required": False,
        "scal": "1",
        "signatures_max": 100,
    }
    return sam.CredentialFacts(**(facts | changes))


@dataclass
class FakeRooms:
    """Everything behind the gateway: opens what is sealed to it, keeps SADs, signs."""

    sam_key: X25519PrivateKey
    authentication_key: X25519PrivateKey
    gateway_key: X25519PrivateKey
    token_keys: KeySet
    credentials: dict[str, sam.CredentialFacts] = field(default_factory=dict)
    asked: list[Message] = field(default_factory=list)
    opened: list[Secrets] = field(default_factory=list)
    refuse: dict[type[Message], Exception] = field(default_factory=dict)
    sads: set[str] = field(default_factory=set)
    authorizations: set[str] = field(default_factory=lambda: {"a-1"})
    lie: bool = False
    page: int = 100
    looks: int = 0
    """How often one must look until what was ordered is there; below zero: it never is."""
    refused: str | None = None
    """Why the CA does not issue."""
    ordered: dict[str, issuance.CreateCredential] = field(default_factory=dict)
    removed: list[str] = field(default_factory=list)

    async def ask(self, request: Any) -> Any:
        self.asked.append(request)
        if type(request) in self.refuse:
            raise self.refuse[type(request)]
        if isinstance(request, authentication.CheckToken):
            self._open(request, request.token, "", self.authentication_key)
            return authentication.TokenFacts(client_id="acme", tenant_id="t1", scope="service")
        if isinstance(request, tsa_connector.Timestamp):
            return tsa_connector.Timestamps(
                tokens=(
                    tsa_connector.TimestampToken(
                        token=b"token of " + request.digest,
                        time=datetime.now(UTC),
                        authority=request.authority or "clock",
                        policy=request.policy or "2.999.1",
                        serial_number="1",
                    ),
                )
            )
        subject = getattr(request, "credential_id", "")
        secrets = self._open(request, request.secrets, subject, self.sam_key)
        return self._of_sam(request, secrets)

    def _open(self, request: Message, sealed: bytes, subject: str, key: X25519PrivateKey) -> Secrets:
        secrets = unseal(sealed, key=key, message=request.TYPE, subject=subject)
        assert secrets.access_token is not None
        self.opened.append(secrets)
        return secrets

    def _of_sam(self, request: Any, secrets: Secrets) -> Any:
        if isinstance(request, sam.ListCredentials):
            return self._list(request, secrets)
        if isinstance(request, issuance.CreateCredential | issuance.CheckIssuance):
            return self._issue(request)
        if isinstance(request, issuance.RemoveCredential) and request.credential_id in self.ordered:
            self.removed.append(request.credential_id)
            return Done()
        facts = self.credentials.get(request.credential_id)
        if facts is None:
            raise RakkanError(Code.CREDENTIAL_UNKNOWN)
        if isinstance(request, sam.DescribeCredential):
            return sam.CredentialDescribed(credential=facts)
        if type(request).__module__ == issuance.__name__:
            return _changed(request)
        return self._use(request, secrets, facts)

    def _use(self, request: Any, secrets: Secrets, facts: sam.CredentialFacts) -> Any:
        if isinstance(request, sam.CheckFactor):
            if request.factor not in ("PIN", "OTP"):
                raise RakkanError(Code.FACTOR_UNKNOWN)
            return Done()
        if isinstance(request, sam.Authorize):
            if facts.assurance == "SCAL2-passkey":
                raise RakkanError(Code.ASSURANCE_REFUSED)
            if secrets.pin is None or secrets.pin.get_secret_value() != "1234":
                raise RakkanError(Code.PIN_INVALID)
            return self._authorized(request)
        self._check_sad(secrets)
        return self._authorized(request) if isinstance(request, sam.ExtendAuthorization) else self._sign(request, facts)

    def _issue(self, request: issuance.CreateCredential | issuance.CheckIssuance) -> issuance.IssuanceChecked:
        if isinstance(request, issuance.CreateCredential):
            name = f"c{len(self.ordered)}"
            self.ordered[name] = request
            return issuance.IssuanceChecked(credential_id=name, state="pending")
        return self._look(request.credential_id)

    def _look(self, name: str) -> issuance.IssuanceChecked:
        if name not in self.ordered:
            raise RakkanError(Code.CREDENTIAL_UNKNOWN)
        self.looks -= 1
        if self.looks != -1:
            return issuance.IssuanceChecked(credential_id=name, state="pending")
        self.looks = 0
        if self.refused is not None:
            return issuance.IssuanceChecked(credential_id=name, state="refused", reason=self.refused)
        ordered = self.ordered[name]
        self.credentials[name] = credential(
            name, authority=ordered.authority, certificate_profile=ordered.profile, description="Signing (Red CA)"
        )
        return issuance.IssuanceChecked(credential_id=name, state="active")

    def _token(self, text: SecretStr) -> AccessToken | None:
        try:
            return read_token(text.get_secret_value(), self.token_keys, now=datetime.now(UTC))
        except RakkanError:
            return None

    def _check_sad(self, secrets: Secrets) -> None:
        """A handle of ours, or a token that names an authorization: as the SAD or as the access token itself."""
        named = secrets.sad or secrets.access_token
        assert named is not None
        token = self._token(named)
        known = token.authorization_id in self.authorizations if token else named.get_secret_value() in self.sads
        if not known:
            raise RakkanError(Code.SAD_INVALID)

    def _list(self, request: sam.ListCredentials, secrets: Secrets) -> sam.CredentialPage:
        token = self._token(secrets.access_token) if secrets.access_token else None
        user_id = token.user_id if token and token.user_id else request.user_id
        if user_id is None:
            raise RakkanError(Code.USER_ID_REQUIRED)
        if user_id != "hanako":
            raise RakkanError(Code.USER_ID_UNKNOWN)
        if request.page_token is not None and not request.page_token.isdigit():
            raise RakkanError(Code.PAGE_TOKEN_INVALID)
        start, size = int(request.page_token or 0), min(self.page, request.results_max)
        found = tuple(self.credentials.values())
        following = str(start + size) if start + size < len(found) else None
        return sam.CredentialPage(credentials=found[start : start + size], next_page_token=following)

    def _authorized(self, request: Any) -> sam.Authorized:
        text = f"sad-{len(self.sads)}"
        self.sads.add(text)
        sealed = seal(
            Secrets.of(sad=text),
            to=self.gateway_key.public_key(),
            message=request.TYPE,
            subject=request.credential_id,
        )
        return sam.Authorized(sad=sealed, expires_in_s=300)

    def _sign(self, request: sam.SignHash, facts: sam.CredentialFacts) -> sam.Signed:
        key = key_of(facts.key_algorithm)
        if self.lie:
            key = ec.generate_private_key(ec.SECP256R1())
        return sam.Signed(
            values=tuple(_value(key, request, digest) for digest in request.digests),
            certificate=certificate_of(facts.key_algorithm),
        )


def _changed(request: Any) -> Any:
    if isinstance(request, issuance.RenewCredential):
        return issuance.IssuanceChecked(credential_id=request.credential_id, state="pending")
    if isinstance(request, issuance.ReadRequest):
        return issuance.RequestRead(csr=b"request", origin=b"statement")
    return Done()


def _value(key: PrivateKey, request: sam.SignHash, digest: bytes) -> bytes:
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key.sign(digest)
    prehashed = Prehashed(_SHA2[request.hash])
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return key.sign(digest, ec.ECDSA(prehashed))
    if request.salt_bytes is None:
        return key.sign(digest, padding.PKCS1v15(), prehashed)
    return key.sign(digest, padding.PSS(padding.MGF1(_SHA2[request.hash]), request.salt_bytes), prehashed)


@dataclass
class Registries:
    """The registry in use; tests put another one here while the gateway runs."""

    current: Registry


@dataclass
class World:
    rooms: FakeRooms
    client: httpx.AsyncClient
    tokens_key: SigningKey
    app: Any
    registries: Registries

    def token(self, *, client_id: str = "acme", lifetime_s: int = 600, **changes: str) -> str:
        now = datetime.now(UTC) - timedelta(seconds=1)
        facts: dict[str, Any] = {
            "token_id": "j1",
            "issuer": "https://auth.example",
            "client_id": client_id,
            "tenant_id": "t1",
            "scope": "service",
            "issued_at": now,
            "expires_at": now + timedelta(seconds=lifetime_s),
        }
        return write_token(AccessToken(**(facts | changes)), self.tokens_key)

    def credential_token(self, **changes: Any) -> str:
        """As it comes of an approval on the page: for `demo`, and for what was approved."""
        named = {"scope": "credential", "user_id": "hanako", "credential_id": "demo", "authorization_id": "a-1"}
        return self.token(**(named | changes))

    async def call(
        self, path: str, body: object = None, *, token: str | None = None, service: str = ""
    ) -> httpx.Response:
        """POST to `/csc/<path>` with a good token, at a virtual service when one is named."""
        headers = {"Authorization": f"Bearer {token or self.token()}"}
        base = f"/s/{service}/csc" if service else "/csc"
        return await self.client.post(f"{base}/{path}", json={} if body is None else body, headers=headers)


def settings_of(limits: Limits | None = None, *, door: Door | None = None) -> Settings:
    nowhere = Path("/nowhere")
    return Settings(
        broker=Broker(password_file=nowhere),
        trust=TrustFiles(bundle_file=nowhere, messages_key_file=nowhere, sealing_key_file=nowhere),
        http=door or Door(),
        registry=RegistryFiles(file=nowhere, signatures_file=nowhere),
        public_url="https://sign.example",
        authentication_url="https://auth.example",
        limits=limits
        or Limits(requests_per_s=100_000, burst=100_000, anonymous_burst=100_000, timestamps_burst=100_000),
    )


@asynccontextmanager
async def opened(
    limits: Limits | None = None, *, door: Door | None = None, address: str = "127.0.0.1"
) -> AsyncIterator[World]:
    """A gateway with one P-256 credential `demo`; callers come from the address."""
    sam_key, authentication_key, gateway_key = (X25519PrivateKey.generate() for _ in range(3))
    private = ed25519.Ed25519PrivateKey.generate()
    tokens_key = SigningKey(key_id_of(private.public_key()), private)
    trust = Trust(
        epoch=1,
        verifying={("authentication", Purpose.TOKENS): {tokens_key.key_id: private.public_key()}},
        sealing={"sam": sam_key.public_key(), "authentication": authentication_key.public_key()},
    )
    rooms = FakeRooms(sam_key, authentication_key, gateway_key, verifying_keys(trust), {"demo": credential("demo")})
    registries = Registries(registry_of())
    app = make_app(rooms, trust, gateway_key, settings_of(limits, door=door), registries)
    transport = httpx.ASGITransport(app, client=(address, 4711))
    async with httpx.AsyncClient(transport=transport, base_url="https://sign.example") as client:
        yield World(rooms, client, tokens_key, app, registries)
