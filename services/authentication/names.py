"""The name in a certificate (RFC 4514) in parts that a person can read. Pure values; escaping is the page's."""

from dataclasses import dataclass

from cryptography import x509
from cryptography.x509.oid import NameOID

_LABELS = {
    NameOID.COMMON_NAME: "name_common",
    NameOID.ORGANIZATION_NAME: "name_organization",
    NameOID.ORGANIZATIONAL_UNIT_NAME: "name_unit",
    NameOID.ORGANIZATION_IDENTIFIER: "name_organization_id",
    NameOID.COUNTRY_NAME: "name_country",
    NameOID.STATE_OR_PROVINCE_NAME: "name_state",
    NameOID.LOCALITY_NAME: "name_locality",
    NameOID.STREET_ADDRESS: "name_street",
    NameOID.SERIAL_NUMBER: "name_serial",
    NameOID.SURNAME: "name_surname",
    NameOID.GIVEN_NAME: "name_given",
    NameOID.PSEUDONYM: "name_pseudonym",
    NameOID.TITLE: "name_title",
    NameOID.EMAIL_ADDRESS: "name_email",
}
_PARTS_MAX = 20


@dataclass(frozen=True)
class NamePart:
    label: str | None
    """The text that says what it is; None where there is none."""
    kind: str
    """The OID, for who wants to know all the same."""
    value: str


def read_name(text: str) -> tuple[NamePart, ...]:
    """The parts, as RFC 4514 writes them from the left; one part without a label when it is no name."""
    try:
        name = x509.Name.from_rfc4514_string(text)
    except ValueError:
        return (NamePart(None, "", text),)
    parts = [NamePart(_LABELS.get(one.oid), one.oid.dotted_string, _text(one)) for one in name]
    return tuple(reversed(parts))[:_PARTS_MAX] or (NamePart(None, "", text),)


def _text(part: x509.NameAttribute[str | bytes]) -> str:
    return part.value if isinstance(part.value, str) else part.value.hex()
