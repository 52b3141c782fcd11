"""The rows the SAM believes, and the seal that makes them believable. Rules only; the key is handed in.

A MAC covers the table, a format version and every field of the row. Whoever edits the database without the HSM makes
a row the SAM refuses to use (RECORD_DAMAGED); an operator has to look into it.
"""

import hmac
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, ClassVar, Literal, TypeVar

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from shared.algorithms import KeyAlgorithm, Profile
from shared.errors import Code, RakkanError

Assurance = Literal["SCAL1-pin", "SCAL2-passkey"]
SubjectType = Literal["natural", "legal", "seal"]
Ending = Literal["", "deleted", "revoked", "expired", "superseded", "spent", "refused"]
"""Why a credential has ended; empty while it has not, and of those that ended before reasons were kept."""
PASSKEY: Assurance = "SCAL2-passkey"

_FORMAT = b"rakkan-row/1\0"
_NONCE_BYTES = 12


class State(StrEnum):
    """Where a credential is in its life."""

    REQUESTED = "requested"
    GENERATED = "generated"
    ORDERED = "ordered"
    ACTIVE = "active"
    SUSPENDED = "suspended"
    REFUSED = "refused"
    ENDED = "ended"
    DESTROYED = "destroyed"


@dataclass(frozen=True, slots=True)
class Signer:
    TABLE: ClassVar[str] = "signers"
    LATER: ClassVar[Mapping[str, object]] = {"organization_identifier": None, "subject_type": "natural"}

    signer_id: str
    tenant_id: str
    user_id: str
    common_name: str
    organization: str | None
    country: str
    pin_salt: bytes
    pin_verifier: bytes
    pin_tries_left: int
    totp_secret: bytes | None
    """Encrypted; see `RowSeal.conceal`."""
    otp_tries_left: int
    otp_last_step: int
    version: int
    mac: bytes = b""
    organization_identifier: str | None = None
    """As verified: ETSI EN 319 412-1 5.1.4, such as `NTRJP-0100-01-123456`."""
    subject_type: SubjectType = "natural"


@dataclass(frozen=True, slots=True)
class Credential:
    TABLE: ClassVar[str] = "credentials"
    LATER: ClassVar[Mapping[str, object]] = {
        "assurance": "SCAL1-pin",
        "certificate_profile": "signing",
        "csr": None,
        "renewal_id": None,
        "supersedes": None,
        "one_time": False,
        "ending": "",
        "revoke_as": 5,
        "status_checked_at": None,
    }

    credential_id: str
    signer_id: str
    tenant_id: str
    description: str
    key_algorithm: KeyAlgorithm
    profile: Profile
    authority: str
    otp_required: bool
    hashes_required: bool
    signatures_max: int
    state: State
    reason: str | None
    key_id: str
    share: bytes | None
    """The key's share, encrypted; None once the key is destroyed."""
    public_key: bytes | None
    order_id: str | None
    chain: tuple[bytes, ...]
    certificate_status: str
    not_after: datetime | None
    version: int
    mac: bytes = b""
    assurance: Assurance = "SCAL1-pin"
    certificate_profile: str = "signing"
    """Of its CA, in the registry. Not `profile`, which is of algorithms."""
    csr: bytes | None = None
    """The request that was ordered on, signed by the key."""
    renewal_id: str | None = None
    """The order of a new certificate for this key, while it is under way."""
    supersedes: str | None = None
    """This row carries the next key of that credential: once it is certified, the two rows change their keys."""
    one_time: bool = False
    """Made for one authorization, and destroyed after it."""
    ending: Ending = ""
    revoke_as: int | None = 5
    """How its certificate is revoked when it ends (RFC 5280 5.3.1); None: it is not."""
    status_checked_at: datetime | None = None
    """When its CA last said what `certificate_status` says: nothing older takes a suspension back."""

    @property
    def audit_subject(self) -> dict[str, str]:
        """What a leaf about it names."""
        return {"credential_id": self.credential_id, "signer_id": self.signer_id, "key_id": self.key_id}


@dataclass(frozen=True, slots=True)
class Authorization:
    """What a SAD or an approved context stands for.

    `used` and `replaced` change; the database guards them and, once more, the SVG.
    """

    TABLE: ClassVar[str] = "authorizations"
    UNSEALED: ClassVar[frozenset[str]] = frozenset({"used", "replaced"})

    authorization_id: str
    sad_hash: bytes | None
    """None when it was approved in a context: then a token of authentication names it, and no SAD leads to it."""
    request_id: str
    credential_id: str
    tenant_id: str
    client_id: str
    signatures: int
    bound: bool
    digest_set_hash: bytes
    epoch: int
    began_at: datetime
    expires_at: datetime
    mac: bytes = b""
    used: int = 0
    replaced: bool = False


@dataclass(frozen=True, slots=True)
class ContextRow:
    """A context that was put before its signer, and how it was decided. `context` is the canonical encoding."""

    TABLE: ClassVar[str] = "contexts"
    UNSEALED: ClassVar[frozenset[str]] = frozenset({"outcome", "decided_at"})

    context_id: str
    signer_id: str
    tenant_id: str
    credential_id: str
    client_id: str
    client_name: str
    context: bytes
    opened_at: datetime
    expires_at: datetime
    mac: bytes = b""
    outcome: str = "open"
    decided_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Authenticator:
    """A passkey or a device key, and whose it is. `public_key` is a COSE key of a passkey, DER of a device key."""

    TABLE: ClassVar[str] = "authenticators"

    authenticator_id: str
    signer_id: str
    kind: Literal["passkey", "device"]
    label: str
    webauthn_id: bytes | None
    public_key: bytes
    sign_count: int
    backup_eligible: bool
    added_at: datetime
    usable_from: datetime
    removed_at: datetime | None
    version: int
    mac: bytes = b""


@dataclass(frozen=True, slots=True)
class Challenge:
    """A challenge for a log-in or an enrollment. With a ticket's hash the enrollment needs no other approval."""

    TABLE: ClassVar[str] = "challenges"
    UNSEALED: ClassVar[frozenset[str]] = frozenset({"spent"})

    challenge_id: str
    purpose: Literal["login", "enrollment"]
    challenge: bytes
    signer_id: str | None
    ticket_hash: bytes | None
    expires_at: datetime
    mac: bytes = b""
    spent: bool = False


@dataclass(frozen=True, slots=True)
class Ticket:
    """A registration authority's statement. Only the hash of the ticket is kept."""

    TABLE: ClassVar[str] = "tickets"
    UNSEALED: ClassVar[frozenset[str]] = frozenset({"spent"})

    ticket_hash: bytes
    signer_id: str
    expires_at: datetime
    mac: bytes = b""
    spent: bool = False


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a signer's authenticator said over a context, as it came. It can be verified again without this service."""

    TABLE: ClassVar[str] = "evidence"

    evidence_id: str
    context_id: str
    signer_id: str
    authenticator_id: str
    kind: Literal["passkey", "device"]
    context: bytes
    public_key: bytes
    webauthn_id: bytes | None
    client_data_json: bytes | None
    authenticator_data: bytes | None
    signature: bytes
    user_handle: bytes | None
    verified_at: datetime
    mac: bytes = b""


Row = TypeVar("Row", Signer, Credential, Authorization, ContextRow, Authenticator, Challenge, Ticket, Evidence)


class RowSeal:
    """Seals and checks rows, and conceals the secrets in them, under the key unsealed from the HSM at the start."""

    def __init__(self, key: bytes) -> None:
        self._mac_key = _derive(key, b"macs")
        self._cipher = AESGCM(_derive(key, b"secrets"))

    def seal(self, row: Row) -> Row:
        """The row with its MAC."""
        return replace(row, mac=self._mac(row))

    def check(self, row: Row) -> Row:
        """The row itself, or RECORD_DAMAGED unless it is as the SAM wrote it."""
        if not hmac.compare_digest(row.mac, self._mac(row)):
            raise RakkanError(Code.RECORD_DAMAGED, f"a row of {row.TABLE} is not as the SAM wrote it")
        return row

    def conceal(self, secret: bytes, *, subject: str) -> bytes:
        """Encrypt a secret for its row; it opens for the same subject only."""
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, secret, subject.encode())

    def reveal(self, concealed: bytes, *, subject: str) -> bytes:
        try:
            return self._cipher.decrypt(concealed[:_NONCE_BYTES], concealed[_NONCE_BYTES:], subject.encode())
        except InvalidTag:
            raise RakkanError(Code.RECORD_DAMAGED, f"the secret of {subject} is not as the SAM wrote it") from None

    def _mac(self, row: Row) -> bytes:
        # A field that came later is left out while it says what its absence said: rows sealed before it still hold,
        # and since each value stands after its name, no other row has their encoding.
        values = {field.name: getattr(row, field.name) for field in fields(row)}
        unsealed = getattr(row, "UNSEALED", frozenset()) | {"mac"}
        unsealed |= {name for name, before in getattr(row, "LATER", {}).items() if values[name] == before}
        encoded = b"".join(
            _prefixed(name.encode()) + _encode(value) for name, value in values.items() if name not in unsealed
        )
        return hmac.digest(self._mac_key, _FORMAT + _prefixed(row.TABLE.encode()) + encoded, "sha256")


def _encode(value: Any) -> bytes:  # noqa: PLR0911  # one return for each type is the table
    """Typed and length-prefixed, so that no two different rows have one encoding."""
    match value:
        case None:
            return b"n"
        case bool():
            return b"t" if value else b"f"
        case int():
            return b"i" + _prefixed(str(value).encode())
        case str():
            return b"s" + _prefixed(value.encode())
        case bytes():
            return b"b" + _prefixed(value)
        case datetime():
            return b"d" + _prefixed(value.astimezone(UTC).isoformat(timespec="microseconds").encode())
        case tuple():
            return b"l" + _prefixed(b"".join(_encode(item) for item in value))
        case _:
            raise TypeError(f"no encoding for {type(value).__name__}")


def _prefixed(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


def _derive(key: bytes, purpose: bytes) -> bytes:
    return HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=b"rakkan-sam/1 " + purpose).derive(key)
