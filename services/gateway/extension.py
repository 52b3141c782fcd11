"""What `info` says of the trust services behind this door: our extension of the CSC, under a name with a version.

Rules only, no I/O. Only additive, optional members; whoever does not know the name reads past it. The meaning of each
member is told to partners in docs/partners/trust-services.md.
"""

from datetime import date
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding

from services.gateway.csc.encoding import encode_base64
from services.gateway.selection import Selection
from shared.registry import CertificateProfile, CertificationAuthority, TimeStampingAuthority

URI = "urn:rakkan:csc-ext:trust-services:1"
_VERSION = "1.0"


def extensions(selection: Selection, *, today: date) -> dict[str, Any]:
    """The member `extensions` of `info`, or nothing where the operator keeps the extension off."""
    if not selection.extension:
        return {}
    authorities = selection.certification_authorities.items()
    stamping = selection.time_stamping_authorities.items()
    told = {
        "version": _VERSION,
        "certificationAuthorities": [_certification_authority(name, found, today) for name, found in authorities],
        "timeStampingAuthorities": [_time_stamping_authority(name, found, today) for name, found in stamping],
        "defaults": _defaults(selection),
    }
    return {"extensions": {URI: told}}


def _certification_authority(name: str, authority: CertificationAuthority, today: date) -> dict[str, Any]:
    told: dict[str, Any] = {
        "id": name,
        "label": authority.label,
        "country": authority.country,
        "status": authority.status,
        "profiles": [_profile(name, profile) for name, profile in authority.profiles.items()],
        "defaultProfile": authority.default_profile,
        "accreditations": [one.name for one in authority.accreditations if one.holds_on(today)],
    }
    anchors = authority.anchor_certificates
    if anchors:
        told["subjectDN"] = anchors[0].subject.rfc4514_string()
        told["caCertificates"] = [encode_base64(anchor.public_bytes(Encoding.DER)) for anchor in anchors]
    return told


def _profile(name: str, profile: CertificateProfile) -> dict[str, Any]:
    told: dict[str, Any] = {
        "id": name,
        "label": profile.label,
        "certificatePolicy": list(profile.policies),
        "subjectType": profile.subject_type,
        "keyAlgos": list(profile.key_algorithms),
        "validityDays": profile.validity_days_max,
        "shortTerm": profile.short_term,
        "issuance": profile.issuance,
        "requiredClaims": list(profile.subject),
    }
    if profile.signature_qualifier is not None:
        told["signatureQualifier"] = profile.signature_qualifier
    return told


def _time_stamping_authority(name: str, tsa: TimeStampingAuthority, today: date) -> dict[str, Any]:
    told: dict[str, Any] = {
        "id": name,
        "label": tsa.label,
        "status": tsa.status,
        "classes": [one.name for one in tsa.classes if one.holds_on(today)],
        "policies": list(tsa.policies),
        "hashAlgos": [hash_.oid for hash_ in tsa.hashes],
        "tsaCertificates": [encode_base64(anchor.public_bytes(Encoding.DER)) for anchor in tsa.anchor_certificates],
    }
    if tsa.accuracy_max_ms is not None:
        told["accuracyMs"] = tsa.accuracy_max_ms
    return told


def _defaults(selection: Selection) -> dict[str, str]:
    """What a request gets that names nothing, as far as this caller may see it."""
    choice = selection.default_timestamps
    authority = selection.certification_authority
    orders = authority in selection.certification_authorities
    stamps = choice is not None and choice.authority in selection.time_stamping_authorities
    told = {
        "certificationAuthority": authority if orders else None,
        "certificateProfile": selection.certificate_profile if orders else None,
        "timeStampingAuthority": choice.authority if choice and stamps else None,
        "timeStampingClass": choice.assurance_class if choice else None,
    }
    return {name: value for name, value in told.items() if value is not None}
