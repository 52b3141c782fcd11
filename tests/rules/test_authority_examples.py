"""Every registry entry that our pages show is one that the registry and its adapter take."""

import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

import services.ca_connector.authorities as adapters
from shared.settings import SettingsError
from tests.support.certificates import authority
from tests.support.ordering import FolderOfSecrets, now, open_entry
from tests.support.peers import EXAMPLES

FILES = sorted(EXAMPLES.glob("*.json"))
CA = authority("Example Root", now=now())
PEM = CA.certificate.public_bytes(Encoding.PEM).decode()
KEY = CA.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def filled(written: Any) -> Any:
    """With a certificate wherever the example says that one belongs there."""
    if isinstance(written, str):
        return PEM if written.endswith(", PEM") else written
    if isinstance(written, dict):
        return {name: filled(part) for name, part in written.items()}
    return [filled(part) for part in written] if isinstance(written, list) else written


class EverySecret(FolderOfSecrets):
    """A key with its certificate where a PEM file is named, else digits, which are hexadecimal and base64 too."""

    def secret_file(self, name: str) -> Path:
        file = self.folder / name
        file.write_text(PEM + KEY if name.endswith(".pem") else "00" * 16)
        return file


def entry_in(file: Path) -> dict[str, Any]:
    entry: dict[str, Any] = filled(json.loads(file.read_text(encoding="utf-8")))
    return entry


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
async def test_an_entry_of_our_pages_is_taken_as_it_stands(file: Path, tmp_path: Path) -> None:
    opened = open_entry(entry_in(file), EverySecret(tmp_path))
    await opened.close()


@pytest.mark.parametrize("protocol", ["nobody", "rest_connection", "rest-connection", "os"])
def test_a_protocol_without_an_adapter_is_refused(protocol: str) -> None:
    with pytest.raises(SettingsError):
        adapters.find(protocol)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_member_that_nobody_knows_refuses_the_entry(file: Path, tmp_path: Path) -> None:
    entry = entry_in(file)
    entry["connection"] = entry.get("connection", {}) | {"retries": 3}
    with pytest.raises(SettingsError, match="retries"):
        open_entry(entry, tmp_path)


def test_every_protocol_has_an_entry_on_our_pages() -> None:
    shown = {json.loads(file.read_text(encoding="utf-8"))["protocol"] for file in FILES}
    folder = Path(adapters.__file__).parent
    known = {file.stem for file in folder.glob("*.py") if "\nPROTOCOL = " in file.read_text(encoding="utf-8")}
    assert shown == known - {"local"}
