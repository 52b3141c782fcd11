"""Which CA a new certificate comes of: every way to name it in part, and every name that leads nowhere."""

from typing import Any

import pytest

from shared.errors import Code, RakkanError
from shared.registry import Registry
from shared.registry.choosing import CertificateChoice, CertificateWish, choose, offer_of
from tests.support.trust_services import certification_authority, registry_of

QUALIFIED, PLAIN, SEALING = "0.4.0.194112.1.2", "2.999.1", "2.999.2"


def profile(*policies: str, **changes: Any) -> dict[str, Any]:
    return {"label": "A profile", "policies": policies} | changes


REGISTRY: Registry = registry_of(
    certification_authorities={
        "blue": certification_authority(
            "Blue CA",
            profiles={
                "signing": profile(QUALIFIED, signature_qualifier="eu_eidas_qes"),
                "seal": profile(SEALING, PLAIN),
                "once": profile(QUALIFIED, short_term=True, signature_qualifier="eu_eidas_qes"),
            },
        ),
        "red": certification_authority(
            "Red CA", profiles={"signing": profile(PLAIN), "special": profile(QUALIFIED, PLAIN)}
        ),
        "hidden": certification_authority("Rival's CA", tenants=["rival"]),
    }
)


def chosen(wish: CertificateWish, *, short_term: bool = False, **service: Any) -> tuple[str, str]:
    choice = choose(wish, offer_of(REGISTRY, "acme", **service), short_term=short_term)
    return choice.authority, choice.profile


@pytest.mark.parametrize(
    ("wish", "answer"),
    [
        (CertificateWish(), ("red", "signing")),
        (CertificateWish(authority="blue"), ("blue", "signing")),
        (CertificateWish(authority="blue", profile="seal"), ("blue", "seal")),
        (CertificateWish(profile="seal"), ("blue", "seal")),
        (CertificateWish(profile="signing"), ("red", "signing")),
        (CertificateWish(authority="blue", policy=PLAIN), ("blue", "seal")),
        (CertificateWish(policy=SEALING), ("blue", "seal")),
        (CertificateWish(policy=PLAIN), ("red", "signing")),
        (CertificateWish(policy=QUALIFIED), ("red", "special")),
        (CertificateWish(qualifier="eu_eidas_qes"), ("blue", "signing")),
        (CertificateWish(policy=QUALIFIED, qualifier="eu_eidas_qes"), ("blue", "signing")),
    ],
    ids=str,
)
def test_a_wish_leads_to_one_ca_and_profile(wish: CertificateWish, answer: tuple[str, str]) -> None:
    assert chosen(wish) == answer


@pytest.mark.parametrize(
    ("wish", "code"),
    [
        (CertificateWish(authority="nobody"), Code.AUTHORITY_UNKNOWN),
        (CertificateWish(authority="hidden"), Code.AUTHORITY_FORBIDDEN),
        (CertificateWish(profile="nothing"), Code.PROFILE_UNKNOWN),
        (CertificateWish(authority="red", profile="seal"), Code.PROFILE_UNKNOWN),
        (CertificateWish(authority="red", profile="signing", policy=QUALIFIED), Code.POLICY_UNKNOWN),
        (CertificateWish(policy="2.999.9"), Code.POLICY_UNKNOWN),
        (CertificateWish(authority="blue", profile="once"), Code.PROFILE_UNKNOWN),
        (CertificateWish(qualifier="jp_none"), Code.QUALIFIER_UNKNOWN),
    ],
    ids=str,
)
def test_a_wish_that_leads_nowhere_is_refused(wish: CertificateWish, code: Code) -> None:
    with pytest.raises(RakkanError) as refused:
        chosen(wish)
    assert refused.value.code is code


def test_what_is_left_open_without_a_default_is_not_guessed() -> None:
    offer = offer_of(REGISTRY.model_copy(update={"defaults": REGISTRY.defaults.model_copy(
        update={"certification_authority": None})}), "acme")  # fmt: skip
    for wish, code in (
        (CertificateWish(), Code.AUTHORITY_UNKNOWN),
        (CertificateWish(policy=QUALIFIED), Code.POLICY_UNKNOWN),
        (CertificateWish(profile="signing"), Code.PROFILE_UNKNOWN),
    ):
        with pytest.raises(RakkanError) as refused:
            choose(wish, offer)
        assert refused.value.code is code
    assert choose(CertificateWish(authority="blue"), offer) == CertificateChoice("blue", "signing")


def test_a_virtual_service_has_its_own_default_and_hides_the_rest() -> None:
    service: dict[str, Any] = {"visible": ("blue",), "authority": "blue", "profile": "seal"}
    assert chosen(CertificateWish(), **service) == ("blue", "seal")
    with pytest.raises(RakkanError) as refused:
        chosen(CertificateWish(authority="red"), **service)
    assert refused.value.code is Code.AUTHORITY_UNKNOWN


def test_a_profile_for_one_use_is_chosen_for_one_use_only() -> None:
    assert chosen(CertificateWish(qualifier="eu_eidas_qes"), short_term=True) == ("blue", "once")
    with pytest.raises(RakkanError):
        chosen(CertificateWish(authority="red", qualifier="eu_eidas_qes"), short_term=True)
