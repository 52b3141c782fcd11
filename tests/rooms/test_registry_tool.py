"""The officers' tool: from a new key to a registry that a room takes up, and what it refuses to sign."""

import json
import stat
from pathlib import Path
from typing import Any

import pytest

from services.operator.registry import DONE, NOT_UNDERSTOOD, REFUSED, main
from shared.errors import Code, RakkanError
from shared.registry.signing import read_registry
from shared.trust import Trust
from tests.support.certificates import authority, pem

REGISTRY: dict[str, Any] = {
    "version": 7,
    "time_stamping_authorities": {
        "clock": {
            "label": "A clock",
            "url": "https://tsa.example/",
            "anchors": [pem(authority("An anchor").certificate)],
            "classes": [{"name": "gold", "since": "2020-01-01"}],
        }
    },
}


@pytest.fixture
def registry(tmp_path: Path) -> Path:
    file = tmp_path / "registry.json"
    file.write_text(json.dumps(REGISTRY))
    return file


@pytest.fixture
def bundle(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    officers: dict[str, Any] = {}
    for name in ("ann", "bea"):
        assert main(["new-officer", name, "--key-file", str(tmp_path / f"{name}.pem"), "--no-passphrase"]) == DONE
        officers |= json.loads(capsys.readouterr().out)
    file = tmp_path / "trust.json"
    file.write_text(json.dumps({"epoch": 1, "rooms": {}, "registry": {"signatures_min": 2, "officers": officers}}))
    return file


def sign(registry: Path, officer: str) -> int:
    return main(["sign", str(registry), "--key-file", str(registry.with_name(f"{officer}.pem")), "--yes"])


def test_two_officers_sign_one_after_the_other_and_a_room_takes_it(registry: Path, bundle: Path) -> None:
    officers = Trust.load(bundle).registry
    signatures = Path(f"{registry}.sig")
    assert sign(registry, "ann") == DONE
    with pytest.raises(RakkanError, match="signed by 1 of its officers and needs 2"):
        read_registry(registry.read_bytes(), signatures.read_bytes(), officers)
    assert sign(registry, "bea") == DONE
    assert read_registry(registry.read_bytes(), signatures.read_bytes(), officers).version == 7


def test_check_tells_what_stands_in_it_and_who_has_signed(
    registry: Path, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sign(registry, "bea")
    capsys.readouterr()
    assert main(["check", str(registry), "--bundle", str(bundle)]) == DONE
    told = capsys.readouterr().out
    assert "clock (gold): https://tsa.example/" in told
    assert "signed by:\n  bea" in told
    assert "1 of 2 that are needed" in told


def test_an_officer_sees_what_changes_before_she_signs(
    registry: Path, bundle: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert bundle.exists()
    present = tmp_path / "present.json"
    present.write_text(json.dumps(REGISTRY, indent=1))
    registry.write_text(json.dumps(REGISTRY | {"version": 8}, indent=1))
    key = str(tmp_path / "ann.pem")
    assert main(["sign", str(registry), "--key-file", key, "--present", str(present), "--yes"]) == DONE
    told = capsys.readouterr().err
    assert '- "version": 7' in told
    assert '+ "version": 8' in told


def test_nobody_signs_by_a_slip_of_the_hand(registry: Path, bundle: Path) -> None:
    assert bundle.exists()
    assert main(["sign", str(registry), "--key-file", str(registry.with_name("ann.pem"))]) == NOT_UNDERSTOOD
    assert not Path(f"{registry}.sig").exists()


def test_a_wrong_registry_is_not_signed_and_the_fault_is_named(
    registry: Path, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bundle.exists()
    registry.write_text(json.dumps(REGISTRY | {"defaults": {"timestamps": {"assurance_class": "silver"}}}))
    assert sign(registry, "ann") == REFUSED
    assert "the class silver, in which no authority stands" in capsys.readouterr().err
    assert not Path(f"{registry}.sig").exists()


def test_an_officers_key_is_for_her_eyes_and_never_overwritten(bundle: Path) -> None:
    key = bundle.with_name("ann.pem")
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    before = key.read_bytes()
    assert main(["new-officer", "ann", "--key-file", str(key), "--no-passphrase"]) == NOT_UNDERSTOOD
    assert key.read_bytes() == before


@pytest.mark.parametrize("content", [b"", b"no key", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"])
def test_what_is_no_key_signs_nothing(registry: Path, content: bytes) -> None:
    registry.with_name("ann.pem").write_bytes(content)
    assert sign(registry, "ann") == NOT_UNDERSTOOD


def test_a_file_that_is_not_there_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(tmp_path / "nothing.json")]) == NOT_UNDERSTOOD
    assert "nothing.json cannot be read" in capsys.readouterr().err


def test_a_damaged_signatures_file_is_refused(registry: Path, bundle: Path) -> None:
    Path(f"{registry}.sig").write_text("{}")
    assert main(["check", str(registry), "--bundle", str(bundle)]) == REFUSED
    with pytest.raises(RakkanError) as refusal:
        read_registry(registry.read_bytes(), b"{}", Trust.load(bundle).registry)
    assert refusal.value.code is Code.MALFORMED
