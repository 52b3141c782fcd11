"""How an adapter is found by the protocol of a registry entry, and what it will not have."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from services.ca_connector import authorities
from services.ca_connector.authorities import Surroundings, find, open_authority
from shared.settings import SettingsError
from tests.support.ca_connector import NoSecrets, registry_of

FOLDER = Path(authorities.__file__).parent


def adapters() -> Iterator[str]:
    for file in sorted(FOLDER.glob("*.py")):
        if "\nPROTOCOL = " in file.read_text(encoding="utf-8"):
            yield file.stem


@pytest.mark.parametrize("protocol", list(adapters()))
def test_each_adapter_is_named_like_its_protocol_and_has_what_an_adapter_has(protocol: str) -> None:
    adapter = find(protocol)
    assert protocol == adapter.PROTOCOL
    assert adapter.Connection.model_config["extra"] == "forbid"
    assert callable(adapter.open)


@pytest.mark.parametrize("protocol", ["nothing", "cmp_messages", "__init__", "os"])
def test_what_is_no_adapter_is_not_taken_for_one(protocol: str) -> None:
    with pytest.raises(SettingsError, match="no adapter"):
        find(protocol)


@pytest.mark.parametrize(
    ("protocol", "connection", "why"),
    [
        ("vault", {}, "the connection of blue: url"),
        ("vault", {"url": "http://127.0.0.1:1", "tokenn": "t"}, "tokenn"),
        ("local", {}, "anchor"),
        ("nothing", {}, "no adapter"),
    ],
)
async def test_an_entry_that_its_adapter_will_not_have_says_what_is_wrong(
    protocol: str, connection: dict[str, Any], why: str
) -> None:
    entry = registry_of(["blue"], protocol=protocol, connection=connection).certification_authorities["blue"]
    surroundings = Surroundings(name="blue", secrets=NoSecrets(), now=lambda: datetime.now(UTC))
    with pytest.raises(SettingsError, match=why):
        open_authority(entry, surroundings)
