"""The seal of a row: what it covers, and that rows from before a field came still hold."""

from dataclasses import dataclass, fields, make_dataclass, replace
from datetime import UTC, datetime
from typing import Any

import pytest

from services.sam.rows import PASSKEY, Credential, RowSeal, State
from shared.algorithms import KeyAlgorithm, Profile
from shared.errors import Code, RakkanError

SEAL = RowSeal(b"k" * 32)
CREDENTIAL = Credential(
    credential_id="cred-1",
    signer_id="s1",
    tenant_id="acme",
    description="contracts",
    key_algorithm=KeyAlgorithm.P256,
    profile=Profile.EU,
    authority="local",
    otp_required=False,
    hashes_required=True,
    signatures_max=10,
    state=State.ACTIVE,
    reason=None,
    key_id="k1",
    share=b"s",
    public_key=b"p",
    order_id="o1",
    chain=(b"certificate",),
    certificate_status="valid",
    not_after=datetime(2027, 1, 1, tzinfo=UTC),
    version=1,
)


@dataclass(frozen=True)
class _Before:
    TABLE = "credentials"


def as_it_was_sealed_before(credential: Credential) -> Any:
    """The row of the version that knew none of what came later."""
    later = {*Credential.LATER, "mac"}
    names = [field.name for field in fields(credential) if field.name not in later]
    before = make_dataclass(
        "Before", [*((name, Any) for name in names), ("mac", bytes, b"")], bases=(_Before,), frozen=True
    )
    return SEAL.seal(before(**{name: getattr(credential, name) for name in names}))


def test_a_row_from_before_assurance_holds_as_what_it_was() -> None:
    mac = as_it_was_sealed_before(CREDENTIAL).mac
    assert SEAL.check(replace(CREDENTIAL, mac=mac)).assurance == "SCAL1-pin"
    with pytest.raises(RakkanError) as refused:
        SEAL.check(replace(CREDENTIAL, mac=mac, assurance=PASSKEY))
    assert refused.value.code is Code.RECORD_DAMAGED


@pytest.mark.parametrize(
    "edited",
    [
        {"certificate_profile": "seal"},
        {"supersedes": "cred-2"},
        {"one_time": True},
        {"revoke_as": None},
        {"renewal_id": "r1"},
        {"csr": b"request"},
        {"ending": "expired"},
        {"status_checked_at": datetime(2026, 11, 25, tzinfo=UTC)},
    ],
    ids=str,
)
def test_what_came_later_is_sealed_too(edited: dict[str, Any]) -> None:
    mac = as_it_was_sealed_before(CREDENTIAL).mac
    with pytest.raises(RakkanError):
        SEAL.check(replace(CREDENTIAL, mac=mac, **edited))


def test_a_passkey_credential_does_not_become_one_of_a_pin() -> None:
    sealed = SEAL.seal(replace(CREDENTIAL, assurance=PASSKEY))
    assert SEAL.check(sealed) is sealed
    with pytest.raises(RakkanError):
        SEAL.check(replace(sealed, assurance="SCAL1-pin"))
