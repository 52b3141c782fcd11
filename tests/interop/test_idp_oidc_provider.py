"""Log-in by a real OpenID provider: npm's oidc-provider, its forms filled in as a person would."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import parse_qsl, urljoin, urlsplit

import httpx
import pytest

from services.authentication.settings import IdP
from tests.support.authentication import Clock
from tests.support.npm import installed
from tests.support.signers import ORIGIN, Front

CLIENT = "rakkan"
SECRET = "secret-of-rakkan-at-the-provider"
ALGORITHMS = ("RS256", "PS256", "ES256", "EdDSA")


class NowClock(Clock):
    """The provider's clock does not stand still."""

    def now(self) -> datetime:
        return datetime.now(UTC)


@pytest.fixture(scope="session")
def packages() -> Path:
    return installed(Path(__file__).parent / "oidc_provider")


@asynccontextmanager
async def provider(packages: Path, algorithm: str) -> AsyncIterator[str]:
    """Its issuer, while it runs."""
    told = {
        "client_id": CLIENT,
        "client_secret": SECRET,
        "redirect_uri": f"{ORIGIN}/idp/callback",
        "algorithm": algorithm,
    }
    process = await asyncio.create_subprocess_exec(
        "node",
        "provider.mjs",
        cwd=packages,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdin.write(json.dumps(told).encode() + b"\n")
    try:
        async with asyncio.timeout(30):
            line = await process.stdout.readline()
            assert line, (await process.stderr.read()).decode()
        yield json.loads(line)["issuer"]
    finally:
        process.stdin.close()
        await process.communicate()


def front_of(issuer: str, tmp_path: Path, *, secret: str = SECRET) -> Front:
    file = tmp_path / "secret"
    file.write_text(secret)
    idp = IdP(issuer=issuer, client_id=CLIENT, client_secret_file=file, tenant_id="acme", name="Provider")
    return Front(clock=NowClock(), idp=idp)


async def log_in(browser: httpx.AsyncClient, user: str | None, *, next_page: str = "/account") -> str:
    """Where the provider sends the browser back to; without a user, the person goes away."""
    started = await browser.get("/idp/start", params={"next": next_page})
    async with httpx.AsyncClient(timeout=20, trust_env=False) as elsewhere:
        answer = await elsewhere.get(started.headers["location"])
        for _ in range(10):
            while answer.is_redirect:
                to = urljoin(str(answer.url), answer.headers["location"])
                if to.startswith(ORIGIN):
                    return to
                answer = await elsewhere.get(to)
            assert answer.status_code == 200, answer.text
            action, prompt = re.findall(r'action="([^"]+)".*?name="prompt" value="([a-z]+)"', answer.text, re.DOTALL)[0]
            if user is None:
                answer = await elsewhere.get(f"{urljoin(str(answer.url), action)}/abort")
            else:
                answer = await elsewhere.post(action, data={"prompt": prompt, "login": user, "password": "any"})
    raise LookupError("the provider never sent the browser back")


def path_of(address: str) -> str:
    return address.removeprefix(ORIGIN)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_a_person_of_the_provider_comes_in_as_the_signer_she_is(
    packages: Path, tmp_path: Path, algorithm: str
) -> None:
    async with provider(packages, algorithm) as issuer:
        front = front_of(issuer, tmp_path)
        front.sam.names["acme", "alice"] = "Alice Example"
        browser = front.browser()
        back = await log_in(browser, "alice", next_page="/approve/req-1")
        told = dict(parse_qsl(urlsplit(back).query))
        assert told["iss"] == issuer
        answer = await browser.get(path_of(back))
        assert (answer.status_code, answer.headers["location"]) == (303, "/approve/req-1")
        assert "alice of the provider" in (await browser.get("/account")).text
        again = await browser.get(path_of(back))
        assert again.status_code == 403


async def test_a_person_who_is_no_signer_or_goes_away_does_not_come_in(packages: Path, tmp_path: Path) -> None:
    async with provider(packages, "ES256") as issuer:
        front = front_of(issuer, tmp_path)
        for user in ("mallory", None):
            browser = front.browser()
            answer = await browser.get(path_of(await log_in(browser, user)))
            assert (answer.status_code, "set-cookie" in answer.headers) == (403, False)
            assert (await browser.get("/account")).status_code == 303


async def test_an_answer_is_good_in_the_browser_that_began(packages: Path, tmp_path: Path) -> None:
    async with provider(packages, "ES256") as issuer:
        front = front_of(issuer, tmp_path)
        front.sam.names["acme", "alice"] = "Alice Example"
        victim = front.browser()
        await victim.get("/login")
        back = await log_in(front.browser(), "alice")
        assert (await victim.get(path_of(back))).status_code == 403
        assert (await victim.get("/account")).status_code == 303


async def test_a_provider_that_does_not_know_our_secret_lets_nobody_in(packages: Path, tmp_path: Path) -> None:
    async with provider(packages, "ES256") as issuer:
        front = front_of(issuer, tmp_path, secret="another")
        front.sam.names["acme", "alice"] = "Alice Example"
        browser = front.browser()
        assert (await browser.get(path_of(await log_in(browser, "alice")))).status_code == 403
        assert (await browser.get("/account")).status_code == 303
