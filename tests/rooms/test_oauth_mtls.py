"""Clients that show a certificate (RFC 8705): to a proxy that hands it on, or in a handshake that ends here."""

import ssl
from dataclasses import dataclass, field
from datetime import UTC, datetime
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from services.authentication.app import make_app
from services.authentication.settings import MTLS
from shared.contracts.authentication import AddClient
from shared.http import HTTPDoor, serve_http
from tests.support.authentication import ISSUER, World
from tests.support.client_certificates import PROXY, SUBJECT, Held, authority, hold
from tests.support.oauth import CALLBACK, VERIFIER, Partner, add_clients, answer_of, authorization, error_of, grant
from tests.support.served import WallClock

OWN_CREDENTIALS = {"grant_type": "client_credentials"}
MTLS_URL = "https://mtls.as.example"


@dataclass
class Bank:
    """The clients of this page and what they hold."""

    world: World
    ca: Held = field(default_factory=authority)
    own: Held = field(default_factory=hold)
    late: Held = field(default_factory=lambda: hold(days=(-9, -1)))

    def __post_init__(self) -> None:
        self.leaf = hold(self.ca)
        self.http = self.world.client(address=PROXY)

    @property
    def clients(self) -> tuple[AddClient, ...]:
        common = {"tenant_id": "acme", "name": "Bank", "redirect_uris": (CALLBACK,)}
        own = {"method": "self_signed_tls_client_auth"}
        given: tuple[dict[str, Any], ...] = (
            {"client_id": "issued", "method": "tls_client_auth", "certificate_name": f"dn:{SUBJECT}"},
            {"client_id": "own", "jwks": self.own.jwks, **own},
            {"client_id": "late", "jwks": self.late.jwks, **own},
        )
        hardened = tuple(AddClient.model_validate(common | one | {"profile": "hardened"}) for one in given)
        return (*hardened, AddClient.model_validate(common | own | {"client_id": "erp", "jwks": self.own.jwks}))

    async def token(self, client_id: str, headers: dict[str, str], /, **form: str) -> httpx.Response:
        data = OWN_CREDENTIALS | {"client_id": client_id} | form
        return await self.http.post("/oauth2/token", data=data, headers=headers)


@pytest.fixture
async def bank(tmp_path: Path) -> Bank:
    world = World(attempts_max=1000)
    ca = authority()
    ca_file, _ = ca.write(tmp_path, "ca")
    world.changed = {
        "http": HTTPDoor(proxies=(ip_network(f"{PROXY}/32"),)),
        "mtls": MTLS(ca_file=ca_file, url=MTLS_URL),
    }
    bank = Bank(world, ca)
    await add_clients(world.store, *bank.clients)
    return bank


async def test_a_client_with_a_certificate_goes_through_the_whole_flow_and_gets_bound_tokens(bank: Bank) -> None:
    held = {"issued": bank.leaf, "own": bank.own}
    for client_id, one in held.items():
        form = authorization(client_id=client_id)
        pushed = await bank.http.post("/oauth2/pushed_authorize", data=form, headers=one.header())
        assert pushed.status_code == 201, pushed.text
        asked = {"client_id": client_id, "request_uri": pushed.json()["request_uri"]}
        browser = bank.world.client()
        page = await browser.get("/oauth2/authorize", params=asked)
        back = answer_of(await grant(bank.world, page.headers["location"].rsplit("/", 1)[1]))
        redeeming = {"grant_type": "authorization_code", "code": back["code"], "redirect_uri": CALLBACK}
        issued = await bank.token(client_id, one.header(), **redeeming, code_verifier=VERIFIER)
        assert (issued.status_code, issued.json()["token_type"]) == (200, "Bearer")
        access = Partner(bank.world).read(issued.json()["access_token"])
        assert (access.certificate_thumbprint, access.key_thumbprint) == (one.thumbprint, None)
        refresh = {"grant_type": "refresh_token", "refresh_token": issued.json()["refresh_token"]}
        again = await bank.token(client_id, one.header(), **refresh)
        assert Partner(bank.world).read(again.json()["access_token"]).certificate_thumbprint == one.thumbprint
        assert (await bank.token(client_id, {}, **refresh)).status_code == 401
        ending = {"client_id": client_id, "token": again.json()["access_token"]}
        assert (await bank.http.post("/oauth2/revoke", data=ending, headers=one.header())).status_code == 204


async def test_a_chain_that_the_proxy_hands_on_is_followed(bank: Bank) -> None:
    below = authority("CN=Issuing,C=JP", bank.ca)
    leaf = hold(below)
    assert (await bank.token("issued", leaf.header(below))).status_code == 200
    assert (await bank.token("issued", leaf.header())).status_code == 401


async def test_every_certificate_that_is_not_the_clients_is_refused(bank: Bank) -> None:
    strange = authority("CN=Strange,C=JP")
    tries: dict[str, tuple[str, dict[str, str]]] = {
        "none": ("issued", {}),
        "none of its own": ("own", {}),
        "another authority's": ("issued", hold(strange).header(strange)),
        "one by itself": ("issued", hold().header()),
        "another name": ("issued", hold(bank.ca, subject="CN=evil.example,C=JP").header()),
        "expired": ("issued", hold(bank.ca, days=(-9, -1)).header()),
        "not valid yet": ("issued", hold(bank.ca, days=(1, 9)).header()),
        "a server's": ("issued", hold(bank.ca, usage=ExtendedKeyUsageOID.SERVER_AUTH).header()),
        "another of the same name": ("own", hold().header()),
        "an authority's, of its name": ("own", hold(bank.ca).header()),
        "its own, expired": ("late", bank.late.header()),
    }
    for what, (client_id, headers) in tries.items():
        assert error_of(await bank.token(client_id, headers))[:2] == (401, "invalid_client"), what
    assert bank.world.events.count("token.refused") == len(tries)
    assert "token.issued" not in bank.world.events


async def test_a_certificate_in_the_header_of_anybody_but_the_proxy_is_refused(bank: Bank) -> None:
    for address in ("127.0.0.1", "10.9.8.6", "2001:db8::1", "::ffff:10.9.8.6", "testclient"):
        bank.http = bank.world.client(address=address)
        for headers in (
            bank.own.header(),
            {"Client-Cert": ""},
            {"Client-Cert-Chain": bank.own.header()["Client-Cert"]},
        ):
            refused = error_of(await bank.token("own", headers))
            assert refused == (400, "invalid_request", "Client-Cert is taken from the proxies of this service only")
    assert not {"token.issued", "token.refused"} & {*bank.world.events}
    bank.http = bank.world.client(address=f"::ffff:{PROXY}")
    assert (await bank.token("own", bank.own.header())).status_code == 200


async def test_without_a_configured_proxy_nobody_is_one(bank: Bank) -> None:
    bank.world.changed = {}
    bank.http = bank.world.client(address=PROXY)
    assert error_of(await bank.token("own", bank.own.header()))[0] == 400
    described = (await bank.http.get("/.well-known/oauth-authorization-server")).json()
    assert described["tls_client_certificate_bound_access_tokens"] is False
    assert not [method for method in described["token_endpoint_auth_methods_supported"] if "tls" in method]
    assert "mtls_endpoint_aliases" not in described


async def test_a_header_that_is_no_certificate_is_refused(bank: Bank) -> None:
    good = bank.own.header()["Client-Cert"]
    for value in ("", "::", good[1:], good[:-1], good + ";a=1", ":AAAA:", ":====:", f"{good}, {good}", "x" * 25_000):
        assert error_of(await bank.token("own", {"Client-Cert": value}))[:2] == (400, "invalid_request"), value
    twice = [("Client-Cert", good), ("Client-Cert", good)]
    data = OWN_CREDENTIALS | {"client_id": "own"}
    assert (await bank.http.post("/oauth2/token", data=data, headers=twice)).status_code == 400


async def test_a_client_proves_itself_in_the_way_it_registered(bank: Bank) -> None:
    header = bank.own.header()
    assert (await bank.token("web", header)).status_code == 400  # a client with a secret
    assert error_of(await bank.token("own", header, client_secret="rks_made-up"))[1] == "invalid_request"
    bank_1 = Partner(bank.world, "bank")
    bank_1.http = bank.http
    assert error_of(await bank.token("bank", header))[1] == "invalid_request"  # one with keys
    by_keys = bank_1.assertion(iss="own", sub="own") | {"client_id": "own"} | OWN_CREDENTIALS
    assert (await bank.http.post("/oauth2/token", data=by_keys, headers=header)).status_code == 401


async def test_a_client_with_keys_may_bind_its_tokens_to_a_certificate(bank: Bank) -> None:
    """FAPI 2.0 5.3.2.1: private_key_jwt and mTLS-bound tokens go together."""
    partner = Partner(bank.world, "bank")
    issued = await bank.token("bank", bank.own.header(), **partner.assertion())
    assert partner.read(issued.json()["access_token"]).certificate_thumbprint == bank.own.thumbprint
    late = await bank.token("bank", bank.late.header(), **partner.assertion())
    assert error_of(late)[:2] == (400, "invalid_request")
    neither = await bank.token("bank", {}, **partner.assertion())
    assert error_of(neither)[:2] == (400, "invalid_dpop_proof")


async def test_a_proof_binds_before_a_certificate_does(bank: Bank) -> None:
    partner = Partner(bank.world, "bank")
    headers = bank.own.header() | {"DPoP": partner.proof("/oauth2/token")}
    access = partner.read((await bank.token("own", headers)).json()["access_token"])
    assert (access.key_thumbprint, access.certificate_thumbprint) == (partner.proof_key.thumbprint(), None)


async def test_a_client_of_the_other_profile_is_bound_by_its_certificate_too(bank: Bank) -> None:
    issued = (await bank.token("erp", bank.own.header())).json()
    assert Partner(bank.world).read(issued["access_token"]).certificate_thumbprint == bank.own.thumbprint


async def test_a_certificate_that_comes_by_the_way_binds_nothing(bank: Bank) -> None:
    partner = Partner(bank.world)
    form, headers = partner.authenticated("/oauth2/token")
    answer = await bank.http.post("/oauth2/token", data=OWN_CREDENTIALS | form, headers=headers | bank.own.header())
    assert partner.read(answer.json()["access_token"]).certificate_thumbprint is None


async def test_the_metadata_says_so_and_where(bank: Bank) -> None:
    described = (await bank.http.get("/.well-known/oauth-authorization-server")).json()
    methods = described["token_endpoint_auth_methods_supported"]
    assert methods[-2:] == ["tls_client_auth", "self_signed_tls_client_auth"]
    assert described["revocation_endpoint_auth_methods_supported"] == methods
    assert described["tls_client_certificate_bound_access_tokens"] is True
    assert described["mtls_endpoint_aliases"] == {
        "pushed_authorization_request_endpoint": f"{MTLS_URL}/oauth2/pushed_authorize",
        "token_endpoint": f"{MTLS_URL}/oauth2/token",
        "revocation_endpoint": f"{MTLS_URL}/oauth2/revoke",
    }
    bank.world.changed["mtls"] = MTLS()
    without = (await bank.world.client().get("/.well-known/oauth-authorization-server")).json()
    assert without["token_endpoint_auth_methods_supported"][-1] == "self_signed_tls_client_auth"
    assert "tls_client_auth" not in without["token_endpoint_auth_methods_supported"]


async def test_a_proof_names_the_address_that_the_client_used(bank: Bank) -> None:
    partner = Partner(bank.world, "bank")
    for base, host, status in (
        (MTLS_URL, MTLS_URL, 200), (ISSUER, ISSUER, 200), (ISSUER, MTLS_URL, 400), (MTLS_URL, ISSUER, 400),
    ):  # fmt: skip
        proof = partner.proof("/oauth2/token", htu=f"{base}/oauth2/token")
        headers = bank.own.header() | {"DPoP": proof, "Host": host.removeprefix("https://")}
        assert (await bank.token("own", headers)).status_code == status, (base, host)


async def test_who_stands_behind_the_proxy_is_counted_and_not_the_proxy(bank: Bank) -> None:
    bank.world.attempts_max = 2
    bank.http = bank.world.client(address=PROXY)
    good, wrong = {"client_secret": "rks_secret-of-a-partner"}, {"client_secret": "rks_guess"}

    async def tried(forwarded: str, secret: dict[str, str]) -> int:
        return (await bank.token("web", {"X-Forwarded-For": forwarded}, **secret)).status_code

    assert [await tried("192.0.2.1", wrong) for _ in range(3)] == [400, 400, 429]
    assert await tried("192.0.2.2", good) == 200
    assert (
        await tried(f"192.0.2.2, 192.0.2.1, {PROXY}", good) == 429
    )  # what stands left of it, anybody may have written
    assert await tried("192.0.2.1, nonsense", good) == 200  # the proxy itself, then
    bank.http = bank.world.client(address="198.51.100.1")
    assert [await tried(f"192.0.2.{n}", wrong) for n in range(3)] == [400, 400, 429]


async def test_a_handshake_that_ends_here_shows_the_certificate(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    ca, strange = (hold(subject=f"CN={name},C=JP", authority=True, now=now) for name in ("Partners", "Strange"))
    ca_file, _ = ca.write(tmp_path, "ca")
    server, server_key = hold(ca, usage=None, now=now, names=(x509.DNSName("localhost"),)).write(tmp_path, "server")
    world = World(clock=WallClock(), attempts_max=1000)
    door = HTTPDoor(certificate_file=server, key_file=server_key, clients_ca_file=ca_file, leave_s=0)
    world.changed = {"http": door, "mtls": MTLS(ca_file=ca_file)}
    bank = Bank(world, ca)
    await add_clients(world.store, *bank.clients)
    leaf = hold(ca, now=now)
    app = make_app(world.store, world.sam, world.trust, world.new_key, world.settings, now=world.clock.now)
    async with serve_http(app, door) as port:

        async def token(held: Held | None, **headers: str) -> httpx.Response:
            context = ssl.create_default_context(cafile=ca_file)
            if held:
                context.load_cert_chain(*held.write(tmp_path, "client"))
            async with httpx.AsyncClient(base_url=f"https://localhost:{port}", verify=context, trust_env=False) as http:
                return await http.post("/oauth2/token", data=OWN_CREDENTIALS | {"client_id": "issued"}, headers=headers)

        issued = await token(leaf)
        assert issued.status_code == 200, issued.text
        assert Partner(world).read(issued.json()["access_token"]).certificate_thumbprint == leaf.thumbprint
        assert (await token(None)).status_code == 401
        assert (await token(hold(ca, subject="CN=evil.example,C=JP", now=now))).status_code == 401
        assert (await token(None, **leaf.header())).status_code == 400
        for refused in (hold(strange, now=now), hold(ca, now=now, days=(-9, -1))):
            with pytest.raises((httpx.ReadError, httpx.ConnectError, httpx.RemoteProtocolError)):
                await token(refused)
