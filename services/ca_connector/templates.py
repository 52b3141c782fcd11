"""What the registry writes with `{names}` about a request to a CA, filled in for one order. Knows no CA and no HTTP."""

import base64
import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import quote

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from services.ca_connector.orders import Order
from shared.errors import Code, RakkanError
from shared.registry.model import CertificateProfile

_NAME = re.compile(r"\{([a-z][a-z0-9_]*)\}")
_BACKDATED = timedelta(hours=1)
"""CAs set notBefore a little back; so much less is asked for than the profile allows."""
_ATTRIBUTES = {
    "common_name": NameOID.COMMON_NAME,
    "organization": NameOID.ORGANIZATION_NAME,
    "organization_identifier": NameOID.ORGANIZATION_IDENTIFIER,
    "country": NameOID.COUNTRY_NAME,
    "subject_serial_number": NameOID.SERIAL_NUMBER,
}
ORDER_NAMES = frozenset(
    {"order_id", "profile", "csr_pem", "csr_base64", "subject", "subject_dn", "validity_days", "validity_seconds"}
    | {"not_before_epoch", "not_after", "not_after_epoch", *_ATTRIBUTES}
    | {"key_usages", "extended_key_usages", "policies"}
)
REVOCATION_NAMES = frozenset(
    {"certificate_pem", "serial_hex", "serial_hex_upper", "serial_decimal", "issuer_dn"}
    | {"reason", "reason_name", "revoked_at", "revoked_at_epoch"}
)
_REASONS = {
    0: "unspecified",
    1: "keyCompromise",
    2: "cACompromise",
    3: "affiliationChanged",
    4: "superseded",
    5: "cessationOfOperation",
    9: "privilegeWithdrawn",
    10: "aACompromise",
}
"""As RFC 5280 5.3.1 writes them."""
_ABSENT = object()


def names_in(template: Any) -> frozenset[str]:
    """Every `{name}` in it."""
    if isinstance(template, str):
        return frozenset(_NAME.findall(template))
    parts = template.values() if isinstance(template, Mapping) else template if isinstance(template, list) else ()
    return frozenset().union(*(names_in(part) for part in parts))


def fill(template: Any, values: Mapping[str, Any]) -> Any:
    """The same with values. A text that is one `{name}` becomes the value itself; what has none is left out."""
    filled = _fill(template, values)
    return None if filled is _ABSENT else filled


def fill_path(template: str, values: Mapping[str, Any]) -> str:
    """Every value percent-encoded, so that none can reach another path. AUTHORITY_UNTRUSTED when one is missing."""

    def value(match: re.Match[str]) -> str:
        found = values.get(match[1])
        # `.` and `..` are not encoded by quoting, and are steps in a path.
        if found is None or not str(found).strip("."):
            raise RakkanError(Code.AUTHORITY_UNTRUSTED, f"the authority did not say its {match[1]}")
        return quote(str(found), safe="")

    return _NAME.sub(value, template)


def values_of(order: Order, profile: CertificateProfile, *, now: datetime) -> dict[str, Any]:
    """The ORDER_NAMES. Those of the subject that its request has not are absent."""
    request = x509.load_der_x509_csr(order.csr)
    validity = timedelta(days=profile.validity_days_max) - _BACKDATED
    values: dict[str, Any] = {
        "order_id": order.order_id,
        "profile": profile.ca_profile or order.profile,
        "csr_pem": request.public_bytes(Encoding.PEM).decode(),
        "csr_base64": base64.b64encode(order.csr).decode(),
        "subject": [{"oid": one.oid.dotted_string, "value": one.value} for one in request.subject],
        "subject_dn": request.subject.rfc4514_string(),
        "key_usages": list(profile.key_usages),
        "extended_key_usages": list(profile.extended_key_usages),
        "policies": list(profile.policies),
        "validity_days": profile.validity_days_max,
        "validity_seconds": int(validity.total_seconds()),
        "not_before_epoch": int(now.timestamp()),
        "not_after": _iso(now + validity),
        "not_after_epoch": int((now + validity).timestamp()),
    }
    for name, oid in _ATTRIBUTES.items():
        if found := request.subject.get_attributes_for_oid(oid):
            values[name] = found[0].value
    return values


def values_of_revocation(
    certificate: bytes, *, reason: int, at: datetime, reasons: Mapping[int, str]
) -> dict[str, Any]:
    """The REVOCATION_NAMES. `reasons`: the CA's own words where they differ from those of RFC 5280."""
    revoked = x509.load_der_x509_certificate(certificate)
    return {
        "certificate_pem": revoked.public_bytes(Encoding.PEM).decode(),
        "serial_hex": f"{revoked.serial_number:x}",
        "serial_hex_upper": f"{revoked.serial_number:X}",
        "serial_decimal": str(revoked.serial_number),
        "issuer_dn": revoked.issuer.rfc4514_string(),
        "reason": reason,
        "reason_name": reasons.get(reason, _REASONS.get(reason, "unspecified")),
        "revoked_at": _iso(at),
        "revoked_at_epoch": int(at.timestamp()),
    }


def _fill(template: Any, values: Mapping[str, Any]) -> Any:
    if isinstance(template, str):
        if whole := _NAME.fullmatch(template):
            return values.get(whole[1], _ABSENT)
        if any(name not in values for name in _NAME.findall(template)):
            return _ABSENT
        return _NAME.sub(lambda match: str(values[match[1]]), template)
    if isinstance(template, Mapping):
        filled = {name: _fill(part, values) for name, part in template.items()}
        return {name: part for name, part in filled.items() if part is not _ABSENT}
    if isinstance(template, list):
        return [part for part in (_fill(one, values) for one in template) if part is not _ABSENT]
    return template


def _iso(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")
