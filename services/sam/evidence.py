"""Whether a signer's authenticator said this: WebAuthn assertions and registrations, and signatures of device keys.

The only file that knows `webauthn`. What does not hold is EVIDENCE_REFUSED; no function here answers with a boolean.
W3C WebAuthn Level 3, 7.1 (registration) and 7.2 (assertion).
"""

import base64
import hmac
import json
import secrets as random
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from webauthn import verify_authentication_response, verify_registration_response
from webauthn.helpers import bytes_to_base64url, decode_credential_public_key, decoded_public_key_to_cryptography
from webauthn.helpers.cose import COSEAlgorithmIdentifier
from webauthn.helpers.exceptions import WebAuthnException
from webauthn.helpers.structs import (
    AttestationFormat,
    AuthenticationCredential,
    AuthenticatorAssertionResponse,
    AuthenticatorAttestationResponse,
    CredentialDeviceType,
    RegistrationCredential,
)

from services.sam import contexts
from services.sam.authenticators import user_handle as handle_of
from services.sam.contexts import Context
from services.sam.rows import Authenticator, ContextRow, Evidence
from shared.contracts.approval import PasskeyAssertion
from shared.errors import Code, RakkanError

_ALGORITHMS = [
    COSEAlgorithmIdentifier.ECDSA_SHA_256,
    COSEAlgorithmIdentifier.EDDSA,
    COSEAlgorithmIdentifier.RSASSA_PKCS1_v1_5_SHA_256,
]
# FIDO U2F keys know no user verification, and SafetyNet is no more.
_FORMATS = frozenset(AttestationFormat) - {AttestationFormat.FIDO_U2F, AttestationFormat.ANDROID_SAFETYNET}
_RSA_BITS_MIN = 2048
_GET, _CREATE = "webauthn.get", "webauthn.create"
# What the library and the parsers under it raise over bytes of a stranger.
_FAULTS = (
    WebAuthnException,
    InvalidSignature,
    UnsupportedAlgorithm,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    RecursionError,
)


@dataclass(frozen=True, slots=True)
class RelyingParty:
    """Where approvals may happen, and whether passkeys count that are copied between devices."""

    rp_id: str
    origins: tuple[str, ...]
    allow_backed_up: bool


@dataclass(frozen=True, slots=True)
class NewPasskey:
    """What a registration tells of a new passkey."""

    webauthn_id: bytes
    public_key: bytes
    """COSE_Key."""
    sign_count: int
    backup_eligible: bool


def verify_assertion(
    assertion: PasskeyAssertion,
    *,
    party: RelyingParty,
    challenge: bytes,
    webauthn_id: bytes | None,
    public_key: bytes,
    sign_count: int,
    backup_eligible: bool,
    user_handle: bytes,
) -> int:
    """The new sign counter of a passkey that answered this challenge, its user present and verified."""
    if webauthn_id is None or assertion.credential_id != webauthn_id:
        raise _refused("another credential's assertion")
    if assertion.user_handle is not None and not hmac.compare_digest(assertion.user_handle, user_handle):
        raise _refused("another user's handle")
    _check_client_data(assertion.client_data_json, type_=_GET, challenge=challenge, party=party)
    credential = AuthenticationCredential(
        id=bytes_to_base64url(assertion.credential_id),
        raw_id=assertion.credential_id,
        response=AuthenticatorAssertionResponse(
            client_data_json=assertion.client_data_json,
            authenticator_data=assertion.authenticator_data,
            signature=assertion.signature,
        ),
    )
    try:
        verified = verify_authentication_response(
            credential=credential,
            expected_challenge=challenge,
            expected_rp_id=party.rp_id,
            expected_origin=list(party.origins),
            credential_public_key=public_key,
            credential_current_sign_count=sign_count,  # it refuses one that does not rise, unless both are zero
            require_user_verification=True,
        )
    except _FAULTS as fault:
        raise _refused(_said(fault)) from None
    if not verified.user_verified:
        raise _refused("the user was not verified")
    is_eligible = verified.credential_device_type is CredentialDeviceType.MULTI_DEVICE
    if is_eligible is not backup_eligible:
        raise _refused("its backup eligibility is not what was enrolled")
    _check_backup(is_eligible, party)
    return verified.new_sign_count


def verify_registration(
    *, client_data_json: bytes, attestation_object: bytes, challenge: bytes, party: RelyingParty
) -> NewPasskey:
    """The new passkey, made for this challenge, its user present and verified.

    Its attestation must hold in itself; no maker of authenticators is trusted more than another.
    """
    _check_client_data(client_data_json, type_=_CREATE, challenge=challenge, party=party)
    response = AuthenticatorAttestationResponse(
        client_data_json=client_data_json, attestation_object=attestation_object
    )
    try:
        verified = verify_registration_response(
            # The page sends no id beside the attested one; the library only compares the two it is given.
            credential=RegistrationCredential(id="", raw_id=b"", response=response),
            expected_challenge=challenge,
            expected_rp_id=party.rp_id,
            expected_origin=list(party.origins),
            require_user_presence=True,
            require_user_verification=True,
            supported_pub_key_algs=_ALGORITHMS,
        )
        key = decoded_public_key_to_cryptography(decode_credential_public_key(verified.credential_public_key))
    except _FAULTS as fault:
        raise _refused(_said(fault)) from None
    if not verified.user_verified:
        raise _refused("the user was not verified")
    if verified.fmt not in _FORMATS:
        raise _refused(f"attestation {verified.fmt}")
    if isinstance(key, RSAPublicKey) and key.key_size < _RSA_BITS_MIN:
        raise _refused("an RSA key too short")
    is_eligible = verified.credential_device_type is CredentialDeviceType.MULTI_DEVICE
    _check_backup(is_eligible, party)
    return NewPasskey(verified.credential_id, verified.credential_public_key, verified.sign_count, is_eligible)


def check_device_key(public_key: bytes) -> None:
    """Raise unless it is the DER SubjectPublicKeyInfo of an Ed25519 or P-256 key, in its one encoding."""
    key = _device_key(public_key)
    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    if der != public_key:
        raise _refused("not the canonical encoding of its key")


def verify_device_signature(signature: bytes, *, public_key: bytes, data: bytes) -> None:
    """Ed25519, or ECDSA with SHA-256 as DER, over the data."""
    key = _device_key(public_key)
    try:
        if isinstance(key, Ed25519PublicKey):
            key.verify(signature, data)
        else:
            key.verify(signature, data, ECDSA(hashes.SHA256()))
    except (InvalidSignature, ValueError):
        raise _refused("not signed by this device key") from None


def verify_evidence(evidence: Evidence, *, party: RelyingParty) -> Context:
    """What was approved, once the evidence holds: from its row alone, at any later time, without this service."""
    context = contexts.read(evidence.context)
    if evidence.kind == "device":
        verify_device_signature(evidence.signature, public_key=evidence.public_key, data=evidence.context)
        return context
    assertion = PasskeyAssertion(
        credential_id=evidence.webauthn_id or b"",
        client_data_json=evidence.client_data_json or b"",
        authenticator_data=evidence.authenticator_data or b"",
        signature=evidence.signature,
        user_handle=evidence.user_handle,
    )
    verify_assertion(
        assertion,
        party=party,
        challenge=contexts.challenge(evidence.context),
        webauthn_id=evidence.webauthn_id,
        public_key=evidence.public_key,
        sign_count=0,  # the counter was judged when it was the newest
        backup_eligible=_says_eligible(evidence.authenticator_data or b""),
        user_handle=handle_of(evidence.signer_id),
    )
    return context


def kept(
    row: ContextRow,
    authenticator: Authenticator,
    *,
    signature: bytes,
    client_data_json: bytes | None = None,
    authenticator_data: bytes | None = None,
    user_handle: bytes | None = None,
    now: datetime,
) -> Evidence:
    """What was verified, as it is kept."""
    return Evidence(
        evidence_id=random.token_hex(16),
        context_id=row.context_id,
        signer_id=row.signer_id,
        authenticator_id=authenticator.authenticator_id,
        kind=authenticator.kind,
        context=row.context,
        public_key=authenticator.public_key,
        webauthn_id=authenticator.webauthn_id,
        client_data_json=client_data_json,
        authenticator_data=authenticator_data,
        signature=signature,
        user_handle=user_handle,
        verified_at=now,
    )


def _check_client_data(client_data_json: bytes, *, type_: str, challenge: bytes, party: RelyingParty) -> None:
    """What the library takes lightly: `crossOrigin` and `topOrigin` it never looks at, a name twice it overlooks."""
    if not party.rp_id:
        raise _refused("no relying party is set up")
    try:
        said = json.loads(client_data_json, object_pairs_hook=_once)
    except (ValueError, RecursionError):
        raise _refused("clientDataJSON is malformed") from None
    if not isinstance(said, dict):
        raise _refused("clientDataJSON is no object")
    if said.get("type") != type_:
        raise _refused(f"not of type {type_}")
    if said.get("challenge") != base64.urlsafe_b64encode(challenge).decode().rstrip("="):
        raise _refused("for another challenge")
    if said.get("origin") not in party.origins:
        raise _refused("made on another origin")
    if said.get("crossOrigin", False) is not False or "topOrigin" in said:
        raise _refused("made inside a page of another origin")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member twice")
    return members


def _check_backup(is_eligible: bool, party: RelyingParty) -> None:  # noqa: FBT001  # the one fact it judges
    if is_eligible and not party.allow_backed_up:
        raise _refused("a passkey that can be copied to other devices")


def _says_eligible(authenticator_data: bytes) -> bool:
    """BE, bit 3 of the flags after the 32 bytes of the rpIdHash (WebAuthn 6.1)."""
    return len(authenticator_data) > 32 and bool(authenticator_data[32] & 0x08)  # noqa: PLR2004  # as said above


def _device_key(public_key: bytes) -> Ed25519PublicKey | EllipticCurvePublicKey:
    try:
        key = serialization.load_der_public_key(public_key)
    except (ValueError, UnsupportedAlgorithm):
        raise _refused("not a public key") from None
    if isinstance(key, Ed25519PublicKey) or (
        isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1)
    ):
        return key
    raise _refused("neither Ed25519 nor P-256")


def _said(fault: BaseException) -> str:
    return str(fault)[:200] or type(fault).__name__


def _refused(why: str) -> RakkanError:
    return RakkanError(Code.EVIDENCE_REFUSED, why)
