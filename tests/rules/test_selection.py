"""Which trust services a request gets, and what `info` tells of them to whom."""

from datetime import date
from typing import Any

import pytest

from services.gateway.extension import URI, extensions
from services.gateway.refusals import CSCError
from services.gateway.selection import Selection, select_for_anybody, select_for_client
from shared.errors import Code, RakkanError
from shared.registry.model import TimestampChoice
from tests.support.trust_services import registry_of, time_stamping_authority

REGISTRY = registry_of()
TODAY = date(2026, 11, 25)


def selected(service_name: str | None = None, *, client_id: str = "acme", tenant_id: str = "t1") -> Selection:
    return select_for_client(REGISTRY, service_name=service_name, client_id=client_id, tenant_id=tenant_id)


def told(selection: Selection) -> Any:
    return extensions(selection, today=TODAY)["extensions"][URI]


def ids(entries: Any) -> list[str]:
    return [entry["id"] for entry in entries]


@pytest.mark.parametrize(
    ("service_name", "authority", "profile", "visible"),
    [
        (None, "red", "signing", None),
        ("shop", "blue", "seal", ("blue",)),
        ("both", "blue", "signing", ("blue", "red")),
        ("classy", "red", "signing", None),
    ],
)
def test_a_base_url_chooses_the_ca(
    service_name: str | None, authority: str, profile: str, visible: tuple[str, ...] | None
) -> None:
    selection = selected(service_name)
    assert selection.certification_authority == authority
    assert selection.certificate_profile == profile
    assert selection.visible_authorities == visible


def test_a_client_that_cannot_change_its_base_url_has_a_default() -> None:
    assert selected(client_id="acme-old").service_name == "shop"
    assert selected("both", client_id="acme-old").service_name == "both"


def test_a_service_of_another_tenant_is_refused_and_an_unknown_one_is_not_found() -> None:
    assert selected("private", tenant_id="rival").service_name == "private"
    with pytest.raises(CSCError) as foreign:
        selected("private")
    with pytest.raises(CSCError) as unknown:
        selected("nowhere")
    with pytest.raises(CSCError):
        select_for_anybody(REGISTRY, service_name="nowhere")
    assert (foreign.value.refusal.status, unknown.value.refusal.status) == (403, 404)


@pytest.mark.parametrize(
    ("service_name", "named", "expected"),
    [
        (None, {}, None),
        (None, {"authority": "clock-1"}, TimestampChoice(authority="clock-1")),
        (None, {"assurance_class": "standard"}, TimestampChoice(assurance_class="standard")),
        ("shop", {}, TimestampChoice(authority="clock-2")),
        ("shop", {"authority": "clock-1"}, TimestampChoice(authority="clock-1")),
        ("classy", {}, TimestampChoice(assurance_class="standard")),
    ],
)
def test_a_request_comes_before_the_base_url_and_that_before_the_default(
    service_name: str | None, named: dict[str, str], expected: TimestampChoice | None
) -> None:
    names = {"authority": None, "assurance_class": None} | named
    assert selected(service_name).timestamps(**names, today=TODAY) == expected


@pytest.mark.parametrize("authority", ["nowhere", "hidden-clock"])
def test_another_tenants_tsa_looks_like_one_that_is_not_there(authority: str) -> None:
    with pytest.raises(RakkanError) as refusal:
        selected().timestamps(authority=authority, assurance_class=None, today=TODAY)
    assert refusal.value.code is Code.TSA_UNKNOWN


@pytest.mark.parametrize("assurance_class", ["nothing", "gold"])
def test_another_tenants_class_looks_like_one_that_is_not_there(assurance_class: str) -> None:
    with pytest.raises(CSCError) as refusal:
        selected().timestamps(authority=None, assurance_class=assurance_class, today=TODAY)
    assert refusal.value.refusal.description == "Invalid parameter timeStampingClass"


def test_a_class_that_has_ended_is_none() -> None:
    ended = [{"name": "gold", "since": "2020-01-01", "until": "2026-11-24"}]
    registry = registry_of(
        time_stamping_authorities={"clock-2": time_stamping_authority("Ended", classes=ended)},
        services={},
        defaults={},
    )
    selection = Selection(registry, tenant_id="t1")
    with pytest.raises(CSCError):
        selection.timestamps(authority=None, assurance_class="gold", today=TODAY)
    assert selection.timestamps(authority=None, assurance_class="gold", today=date(2026, 11, 24)) is not None
    assert told(selection)["timeStampingAuthorities"][0]["classes"] == []


def test_without_a_token_only_what_is_open_to_everybody_is_told() -> None:
    anybody, mine = told(Selection(REGISTRY)), told(selected())
    rivals = told(selected(tenant_id="rival"))
    for seen in (anybody, mine):
        assert ids(seen["certificationAuthorities"]) == ["blue", "red"]
        assert ids(seen["timeStampingAuthorities"]) == ["clock-1", "clock-2"]
    assert ids(rivals["certificationAuthorities"]) == ["blue", "red", "hidden"]
    assert ids(rivals["timeStampingAuthorities"]) == ["clock-1", "clock-2", "hidden-clock"]


def test_a_service_tells_of_its_own_cas_and_defaults() -> None:
    seen = told(selected("shop"))
    assert ids(seen["certificationAuthorities"]) == ["blue"]
    assert seen["defaults"] == {
        "certificationAuthority": "blue",
        "certificateProfile": "seal",
        "timeStampingAuthority": "clock-2",
    }


def test_a_default_that_is_another_tenants_is_not_told() -> None:
    registry = registry_of(
        defaults={"certification_authority": "hidden", "timestamps": {"authority": "hidden-clock"}}, services={}
    )
    assert told(Selection(registry))["defaults"] == {}


def test_everything_told_of_a_ca_and_a_tsa_has_its_name() -> None:
    seen = told(selected())
    assert seen["certificationAuthorities"][0].keys() >= {"id", "label", "country", "status", "subjectDN", "profiles"}
    assert seen["certificationAuthorities"][0]["profiles"][0] == {
        "id": "signing",
        "label": "Signing",
        "certificatePolicy": ["0.4.0.194112.1.2"],
        "subjectType": "natural",
        "keyAlgos": ["p256"],
        "validityDays": 1826,
        "shortTerm": False,
        "issuance": "immediate",
        "requiredClaims": ["country", "organization", "common_name", "serial_number"],
    }
    assert seen["timeStampingAuthorities"][0].keys() >= {"id", "label", "status", "classes", "policies", "hashAlgos"}


def test_the_extension_can_be_kept_off() -> None:
    assert extensions(Selection(registry_of(extension=False)), today=TODAY) == {}
