"""How v2 describes a credential (CSC 2.2 11.5), and what our extension says of where its certificate is from."""

from typing import Any

from services.gateway.certificates import read_certificate
from services.gateway.csc import writing
from services.gateway.csc.facade import Limits
from services.gateway.csc.model import Shape
from shared.contracts.sam import CredentialFacts


def credential(facts: CredentialFacts, shape: Shape, limits: Limits) -> dict[str, Any]:
    shown = writing.credential(facts, shape, hashes_max=limits.hashes_max)
    if limits.extension and facts.authority:
        shown["issuance"] = _issuance(facts)
    if writing.is_approved_by_oauth(facts):
        # Strict clients want the member `objects` wherever authInfo was asked for, if only as null.
        shown["auth"] = {"mode": "oauth2code"} | ({"objects": None} if shape.authorization_info else {})
        return shown
    shown["auth"] = {"mode": "explicit"}
    if shape.authorization_info:
        objects = _objects(facts)
        if objects:
            shown["auth"]["expression"] = " AND ".join(found["id"] for found in objects)
        shown["auth"]["objects"] = objects
    return shown


def _issuance(facts: CredentialFacts) -> dict[str, Any]:
    told: dict[str, Any] = {
        "certificationAuthority": facts.authority,
        "certificateProfile": facts.certificate_profile,
    }
    if facts.certificates:
        told["policy"] = list(read_certificate(facts.certificates[0]).policies)
    if facts.status_checked_at is not None:
        told["statusCheckedAt"] = writing.csc_time(facts.status_checked_at)
    if facts.renewing:
        told["renewal"] = "pending"
    return told


def _objects(facts: CredentialFacts) -> list[dict[str, str]]:
    objects = []
    if facts.pin_required:
        objects.append(
            {
                "type": "Password",
                "id": writing.PIN_ID,
                "format": "A",
                "label": writing.PIN_LABEL,
                "description": writing.PIN_DESCRIPTION,
            }
        )
    if facts.otp_required:
        objects.append(
            {
                "type": "Password",
                "id": writing.OTP_ID,
                "format": "N",
                "generator": "totp",
                "label": writing.OTP_LABEL,
                "description": writing.OTP_DESCRIPTION,
            }
        )
    return objects
