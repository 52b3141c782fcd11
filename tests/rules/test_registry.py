"""The registry of trust services: who must have signed it, what contradicts itself, and that it never goes back."""

import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from shared.errors import Code, RakkanError
from shared.registry import Registry, RegistrySource
from shared.registry.signing import read_registry, sign
from shared.settings import RegistryFiles, SettingsError
from shared.trust import RegistryOfficers, Trust, key_id_of
from tests.support.certificates import authority, pem

ANN, BEA, STRANGER = (Ed25519PrivateKey.generate() for _ in range(3))
ANN_TOO = Ed25519PrivateKey.generate()
PEM = pem(authority("An anchor").certificate)
TSA = {
    "label": "T",
    "url": "https://tsa.example/",
    "anchors": [PEM],
    "classes": [{"name": "gold", "since": "2020-01-01"}],
}
CA = {
    "label": "C",
    "protocol": "cmp",
    "anchors": [PEM],
    "profiles": {"signing": {"label": "S"}},
    "default_profile": "signing",
}


def registry(**changes: Any) -> dict[str, Any]:
    return {
        "version": 1,
        "certification_authorities": {"one": CA},
        "time_stamping_authorities": {"clock": TSA},
        "services": {"shop": {"label": "Shop", "certification_authority": "one"}},
    } | changes


def profiled(**members: Any) -> dict[str, Any]:
    """A change of the registry: the one profile says this besides."""
    return {"certification_authorities": {"one": CA | {"profiles": {"signing": {"label": "S"} | members}}}}


def officers() -> RegistryOfficers:
    people = ((ANN, "ann"), (ANN_TOO, "ann"), (BEA, "bea"))
    keys = {key_id_of(key.public_key()): (key.public_key(), name) for key, name in people}
    return RegistryOfficers(
        signatures_min=2,
        keys={key_id: key for key_id, (key, _) in keys.items()},
        names={key_id: name for key_id, (_, name) in keys.items()},
    )


def signed(content: bytes, *keys: Ed25519PrivateKey) -> bytes:
    signatures = b"[]"
    for key in keys:
        signatures = sign(content, key, signatures)
    return signatures


def test_two_officers_put_a_registry_in_use() -> None:
    content = json.dumps(registry()).encode()
    found = read_registry(content, signed(content, ANN, BEA), officers())
    assert found.certification_authorities["one"].anchor_certificates[0].subject.rfc4514_string() == "CN=An anchor"


@pytest.mark.parametrize(
    "keys",
    [(), (ANN,), (ANN, ANN), (ANN, ANN_TOO), (ANN, STRANGER), (STRANGER,)],
    ids=["nobody", "one", "one twice", "one with two keys", "one and a stranger", "a stranger"],
)
def test_fewer_than_two_officers_put_nothing_in_use(keys: tuple[Ed25519PrivateKey, ...]) -> None:
    content = json.dumps(registry()).encode()
    with pytest.raises(RakkanError) as refusal:
        read_registry(content, signed(content, *keys), officers())
    assert refusal.value.code is Code.FORBIDDEN


def test_one_changed_byte_ends_every_signature() -> None:
    content = json.dumps(registry()).encode()
    with pytest.raises(RakkanError) as refusal:
        read_registry(content.replace(b"tsa.example", b"tsb.example"), signed(content, ANN, BEA), officers())
    assert refusal.value.code is Code.FORBIDDEN


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"versoin": 2}, "versoin"),
        ({"services": {"shop": {"label": "S", "certification_authority": "two"}}}, "two, which is not there"),
        (
            {"services": {"shop": {"label": "S", "certificate_profile": "signing"}}},
            "without its certification_authority",
        ),
        (
            {"services": {"s": {"label": "S", "certification_authority": "one", "certificate_profile": "x"}}},
            "profile x, which one has not",
        ),
        ({"services": {"s": {"label": "S", "visible_authorities": ["nine"]}}}, "nine, which is not there"),
        ({"services": {"s": {"label": "S", "timestamps": {"authority": "sundial"}}}}, "sundial"),
        ({"services": {"s": {"label": "S", "timestamp_networks": ["10.0.0.0/8"]}}}, "exactly one tenant"),
        (
            {"services": {"s": {"label": "S", "timestamp_networks": ["10.0.0.0/8"], "tenants": ["a", "b"]}}},
            "exactly one tenant",
        ),
        ({"services": {"s": {"label": "S", "timestamp_networks": ["10.0.0.1/8"], "tenants": ["a"]}}}, "host bits set"),
        ({"services": {"s": {"label": "S", "timestamp_networks": ["home"], "tenants": ["a"]}}}, "home"),
        ({"defaults": {"timestamps": {"assurance_class": "silver"}}}, "silver"),
        ({"time_stamping_authorities": {"clock": {**TSA, "hedge_percent_max": 21}}}, "less than or equal to 20"),
        ({"defaults": {"timestamps": {"authority": "clock", "assurance_class": "gold"}}}, "either"),
        ({"defaults": {"clients": {"app": "mall"}}}, "mall"),
        ({"certification_authorities": {"one": CA | {"default_profile": "sealing"}}}, "sealing is none"),
        ({"certification_authorities": {"one": CA | {"anchors": ["no certificate"]}}}, "anchors"),
        ({"certification_authorities": {"One": CA}}, "One"),
        (profiled(dns_name="signers.example"), "with {credential_id} in it once"),
        (profiled(dns_name="{credential_id}.{credential_id}.example"), "with {credential_id} in it once"),
        (profiled(dns_name="{credential_id}.{tenant_id}.example"), "is no DNS name"),
        (profiled(dns_name="{credential_id}_at.example"), "is no DNS name"),
        (profiled(dns_name="*.{credential_id}.example"), "is no DNS name"),
        (profiled(dns_name="{credential_id}"), "is no DNS name"),
        ({"time_stamping_authorities": {"clock": TSA | {"login": {"kind": "basic"}}}}, "needs username, secret"),
        ({"time_stamping_authorities": {"clock": TSA | {"anchors": []}}}, "anchors"),
        ({"time_stamping_authorities": {"clock": TSA | {"url": "ftp://tsa.example"}}}, "url"),
    ],
)
def test_what_is_wrong_in_a_registry_is_named(changes: dict[str, Any], told: str) -> None:
    content = json.dumps(registry(**changes)).encode()
    with pytest.raises(RakkanError) as refusal:
        read_registry(content, signed(content, ANN, BEA), officers())
    assert refusal.value.code is Code.MALFORMED
    assert told in refusal.value.detail


class Place:
    """A registry's files, and the source that a room would hold."""

    def __init__(self, folder: Path) -> None:
        self.files = RegistryFiles(
            file=folder / "registry.json",
            signatures_file=folder / "registry.json.sig",
            secrets_folder=folder / "secrets",
        )

    def write(self, *keys: Ed25519PrivateKey, **changes: Any) -> None:
        content = json.dumps(registry(**changes)).encode()
        self.files.file.write_bytes(content)
        self.files.signatures_file.write_bytes(signed(content, *(keys or (ANN, BEA))))

    def source(self) -> RegistrySource:
        return RegistrySource(self.files, Trust(epoch=1, verifying={}, sealing={}, registry=officers()))


@pytest.fixture
def place(tmp_path: Path) -> Place:
    found = Place(tmp_path)
    found.write()
    return found


def test_a_room_does_not_start_without_a_signed_registry(place: Place) -> None:
    place.write(ANN)
    with pytest.raises(SettingsError, match="signed by 1 of its officers and needs 2"):
        place.source()


async def test_a_changed_registry_is_taken_up_while_the_room_runs(place: Place) -> None:
    source = place.source()
    assert not await source.reload()
    place.write(version=2, extension=False)
    assert await source.reload()
    assert (source.current.version, source.current.extension) == (2, False)


@pytest.mark.parametrize("version", [1, 2])
async def test_a_registry_never_goes_back_or_changes_under_its_version(place: Place, version: int) -> None:
    place.write(version=2)
    source = place.source()
    place.write(version=version, extension=False)
    assert not await source.reload()
    assert source.current.extension


async def test_an_unsigned_change_leaves_the_present_registry_in_use(place: Place) -> None:
    source = place.source()
    place.write(ANN, version=2)
    assert not await source.reload()
    assert source.current.version == 1
    place.write(version=2)
    assert await source.reload()


async def test_a_room_that_cannot_work_by_a_registry_stays_with_its_own(place: Place) -> None:
    source = place.source()

    async def refuse(new: Registry) -> None:
        raise RakkanError(Code.MALFORMED, f"no adapter for version {new.version}")

    source.listen(refuse)
    place.write(version=2)
    assert not await source.reload()
    assert source.current.version == 1


def test_a_secret_is_a_name_and_never_a_path(place: Place) -> None:
    source = place.source()
    assert place.files.secrets_folder is not None
    place.files.secrets_folder.mkdir()
    (place.files.secrets_folder / "token").write_text("s3cret\n")
    assert source.secret("token") == "s3cret"
    for name in ("../token", "/etc/passwd", ".hidden", ""):
        with pytest.raises(SettingsError):
            source.secret(name)
