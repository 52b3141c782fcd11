"""What both versions answer alike: a credential's key and certificates, SADs, values. Knows no request."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from services.gateway.certificates import read_certificate
from services.gateway.csc.encoding import encode_base64, encode_serial
from services.gateway.csc.model import SAD, Shape, Signatures
from shared.contracts.sam import CredentialFacts
from shared.contracts.tsa_connector import TimestampToken

LANGUAGE = "en"
PIN_ID = "PIN"
OTP_ID = "OTP"
PIN_LABEL = "PIN"
PIN_DESCRIPTION = "The PIN that was chosen for this signer"
OTP_LABEL = "One-time password"
OTP_DESCRIPTION = "The six digits that the signer's authenticator app shows now"
OTP_PROVIDER = "Authenticator app (TOTP, RFC 6238)"

_ENDED = frozenset(["expired", "revoked", "suspended"])


def csc_time(moment: datetime) -> str:
    """GeneralizedTime in UTC, as the CSC writes it."""
    return f"{moment:%Y%m%d%H%M%S}Z"


def is_approved_by_oauth(facts: CredentialFacts) -> bool:
    """Whether the signer approves on the page of authentication, and `credentials/authorize` is closed."""
    return facts.assurance == "SCAL2-passkey"


def credential(facts: CredentialFacts, shape: Shape, *, hashes_max: int) -> dict[str, Any]:
    """The members that both versions share (CSC 11.5)."""
    shown: dict[str, Any] = {"description": facts.description} if facts.description else {}
    shown["key"] = _key(facts)
    shown["cert"] = _certificate(facts, shape)
    shown["SCAL"] = facts.scal
    # Clients cut their batches by this number, so it may not be more than one call takes.
    shown["multisign"] = min(facts.signatures_max, hashes_max)
    shown["lang"] = LANGUAGE
    return shown


def _key(facts: CredentialFacts) -> dict[str, Any]:
    enabled = facts.enabled and facts.certificate_status not in _ENDED
    shown: dict[str, Any] = {
        "status": "enabled" if enabled else "disabled",
        "algo": list(facts.sign_algorithms),
        "len": facts.key_algorithm.bits,
    }
    if facts.key_algorithm.curve_oid is not None:
        shown["curve"] = facts.key_algorithm.curve_oid
    return shown


def _certificate(facts: CredentialFacts, shape: Shape) -> dict[str, Any]:
    shown: dict[str, Any] = {}
    if facts.certificate_status is not None:
        shown["status"] = facts.certificate_status
    if not facts.certificates:
        return shown
    if shape.certificates != "none":
        chain = facts.certificates if shape.certificates == "chain" else facts.certificates[:1]
        shown["certificates"] = [encode_base64(der) for der in chain]
    if shape.certificate_info:
        read = read_certificate(facts.certificates[0])
        shown |= {
            "issuerDN": read.issuer,
            "serialNumber": encode_serial(read.serial),
            "subjectDN": read.subject,
            "validFrom": csc_time(read.not_before),
            "validTo": csc_time(read.not_after),
        }
        if read.qc_statements:
            shown["qcStatements"] = list(read.qc_statements)
        if read.policies:
            shown["policy"] = list(read.policies)
    return shown


def sad(answer: SAD) -> Mapping[str, Any]:
    return {"SAD": answer.text, "expiresIn": answer.expires_in_s}


def signatures(answer: Signatures) -> Mapping[str, Any]:
    return {"signatures": [encode_base64(value) for value in answer.values]}


def timestamp(answer: TimestampToken, *, extension: bool) -> Mapping[str, Any]:
    shown = {"timestamp": encode_base64(answer.token)}
    return shown | {"timeStampingAuthority": answer.authority} if extension else shown
