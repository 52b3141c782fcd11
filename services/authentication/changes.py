"""What a client wants of a signer beside signatures: a new credential, or the end of one (CSC 2.2). Rules, no I/O.

What a client writes about the subject is not used: in a certificate stands what was verified.
"""

from dataclasses import dataclass
from typing import Any, Literal

from services.authentication.oauth import Refusal
from shared.contracts.issuance import CREATION, DELETION
from shared.registry.choosing import CertificateWish

Scope = Literal["credential-creation", "credential-deletion"]
_BASE = "https://cloudsignatureconsortium.org/2025/"
CREATION_TYPES = (f"{_BASE}credential-creation", "credential_creation")
DELETION_TYPES = (f"{_BASE}credential-deletion", "credential_deletion", "credential_delete")
"""The spellings of CSC 2.2 and of its drafts."""
TYPES = (*CREATION_TYPES, *DELETION_TYPES)
_CREDENTIAL_ID_MAX = 255
_NAME_MAX = 255
_WISHES = {
    "authority": "certificationAuthority",
    "profile": "certificateProfile",
    "policy": "certificatePolicy",
    "qualifier": "signatureQualifier",
}


@dataclass(frozen=True, slots=True)
class Change:
    """One element of authorization_details that asks for no signature."""

    scope: Scope
    wish: CertificateWish | None = None
    """Of a creation."""
    credential_id: str | None = None
    """Of a deletion."""


def read_change(detail: dict[str, Any]) -> Change | None:
    """What it asks for; None when it is of another type."""
    if detail.get("type") in DELETION_TYPES:
        credential_id = _text(detail, "credentialID", _CREDENTIAL_ID_MAX)
        if credential_id is None:
            raise refused("names no credentialID")
        return Change(DELETION, credential_id=credential_id)
    if detail.get("type") not in CREATION_TYPES:
        return None
    wanted = detail.get("credentialCreationRequest")
    if not isinstance(wanted, dict):
        raise refused("has no credentialCreationRequest")
    wish = CertificateWish(**{field: _text(wanted, name, _NAME_MAX) for field, name in _WISHES.items()})
    return Change(CREATION, wish=wish)


def _text(members: dict[str, Any], name: str, chars_max: int) -> str | None:
    value = members.get(name)
    if value is None:
        return None
    if not isinstance(value, str) or not value.isprintable() or not 0 < len(value) <= chars_max:
        raise refused(f"has a {name} that is no text, or that is too long")
    return value


def refused(why: str) -> Refusal:
    return Refusal("invalid_authorization_details", f"authorization_details {why}")
