"""What may be registered of a client, and what a redirect URI must look like."""

import pytest
from joserfc.jwk import ECKey

from services.authentication.registration import check_redirect_uri, check_registration
from shared.contracts.authentication import AddClient
from shared.errors import Code, RakkanError
from tests.support.oauth import jwks_of

JWKS = jwks_of(ECKey.generate_key("P-256"))

GOOD = [
    "https://partner.example/callback",
    "https://partner.example",
    "https://partner.example:8443/a/b?c=d",
    "https://sub.partner.example/callback%20here",
    "https://192.0.2.1/callback",
    "https://[2001:db8::1]:8443/callback",
    "http://127.0.0.1/callback",
    "http://127.0.0.1:4000/callback",
    "http://[::1]:4000/callback",
    "http://localhost:4000/callback",
    "com.example.wallet:/callback",
    "rqes://oauth/callback",
]
BAD = [
    "",
    "/callback",
    "//partner.example/callback",
    "partner.example/callback",
    "http://partner.example/callback",
    "http://localhost.evil.example/callback",
    "http://127.0.0.1.evil.example/callback",
    "http://127.0.0.1@evil.example/callback",
    "https://",
    "https:///callback",
    "https:partner.example/callback",
    "https://user@partner.example/callback",
    "https://user:secret@partner.example/callback",
    "https://Partner.example/callback",
    "https://partner..example/callback",
    "https://-partner.example/callback",
    "https://partner.example./callback",
    "https://partner.example:port/callback",
    "https://partner.example/callback#",
    "https://partner.example/callback#fragment",
    "https://partner.example/*",
    "https://*.partner.example/callback",
    "https://partner.example/../callback",
    "https://partner.example/./callback",
    "https://partner.example/%2e%2E/callback",
    "https://partner.example/a b",
    "https://partner.example\\callback",
    "https://partner.example/callback\n",
    "https://partner.example/callback%",
    "https://partner.example/callback%zz",
    "https://p\u0430rtner.example/callback",
    "https://partner.example/\u3042",
    "https://partner.example/<script>",
    'https://partner.example/"',
    "javascript:alert(1)",
    "JavaScript:alert(1)",
    "data:text/html,x",
    "file:///etc/passwd",
    "blob:https://partner.example/x",
    "view-source:https://partner.example/",
    "mailto:a@partner.example",
]


@pytest.mark.parametrize("uri", GOOD)
def test_a_good_redirect_uri_is_taken(uri: str) -> None:
    check_redirect_uri(uri, https_only=False)


@pytest.mark.parametrize("uri", BAD)
def test_a_bad_redirect_uri_is_refused(uri: str) -> None:
    for https_only in (False, True):
        with pytest.raises(RakkanError) as refusal:
            check_redirect_uri(uri, https_only=https_only)
        assert refusal.value.code is Code.MALFORMED


@pytest.mark.parametrize("uri", [uri for uri in GOOD if not uri.startswith("https:")])
def test_a_hardened_client_has_https_only(uri: str) -> None:
    with pytest.raises(RakkanError):
        check_redirect_uri(uri, https_only=True)


def added(**facts: object) -> AddClient:
    base = {"tenant_id": "acme", "client_id": "one", "name": "P"}
    return AddClient.model_validate(base | facts)


def test_what_goes_together_is_taken() -> None:
    check_registration(added())
    check_registration(added(flags=("pkce-optional", "token-type-sad", "account-tokens"), redirect_uris=tuple(GOOD)))
    keyed = {"method": "private_key_jwt", "jwks": JWKS}
    check_registration(added(**keyed, profile="hardened", redirect_uris=(GOOD[0],)))


@pytest.mark.parametrize(
    "facts",
    [
        {"profile": "hardened"},
        {"profile": "hardened", "method": "private_key_jwt"},
        {"profile": "hardened", "method": "private_key_jwt", "jwks": JWKS, "flags": ("pkce-optional",)},
        {"profile": "hardened", "method": "private_key_jwt", "jwks": JWKS, "redirect_uris": ("http://127.0.0.1/cb",)},
        {"method": "private_key_jwt", "jwks": JWKS, "flags": ("account-tokens",)},
        {"jwks": JWKS},
        {"redirect_uris": (GOOD[0], GOOD[0])},
        {"redirect_uris": (BAD[4],)},
        {"flags": ("pkce-optional", "pkce-optional")},
    ],
)
def test_what_contradicts_itself_is_refused(facts: dict[str, object]) -> None:
    with pytest.raises(RakkanError) as refusal:
        check_registration(added(**facts))
    assert refusal.value.code is Code.MALFORMED
