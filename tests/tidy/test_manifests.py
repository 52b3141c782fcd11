"""The manifests equal what the topology says, and name the rooms, ports and settings that exist."""

import importlib
import re
from pathlib import Path

import pytest

from deploy.manifests.__main__ import stale
from deploy.manifests.rooms import SIDE_PORT, Room, rooms
from shared.settings import PREFIX, _names

ROOT = Path(__file__).parents[2]


def test_manifests_equal_the_topology() -> None:
    assert stale() == [], "run: python -m deploy.manifests --write"


@pytest.mark.parametrize("room", rooms(), ids=lambda room: room.name)
def test_a_room_is_told_only_settings_that_it_knows(room: Room) -> None:
    known = set(_names(importlib.import_module(f"services.{room.name}.settings").Settings, PREFIX))
    manifests = (ROOT / "k8s" / "base" / f"{room.host}.yaml").read_text(encoding="utf-8")
    compose = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    block = re.split(r"\n {2}\S", compose.split(f"\n  {room.host}:\n", 1)[1], maxsplit=1)[0]
    named = set(re.findall(rf"{PREFIX}[A-Z_0-9]+", manifests + block))
    assert named <= known, f"unknown to {room.name}: {sorted(named - known)}"
    assert set(room.settings()) <= named


def test_every_room_has_probes_on_its_side_port_and_no_rights() -> None:
    for room in rooms():
        text = (ROOT / "k8s" / "base" / f"{room.host}.yaml").read_text(encoding="utf-8")
        assert f"containerPort: {SIDE_PORT}" in text
        for needed in ("/readyz", "/healthz", "readOnlyRootFilesystem: true", "runAsNonRoot: true"):
            assert needed in text, f"{room.host}: no {needed}"


def test_overlays_name_every_room() -> None:
    overlay = (ROOT / "k8s" / "overlays" / "dev" / "kustomization.yaml").read_text(encoding="utf-8")
    for room in rooms():
        assert f"rakkan-{room.host}" in overlay
