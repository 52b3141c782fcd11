"""What signers meet in the browser, wired to its paths."""

from collections.abc import Callable
from datetime import datetime
from typing import Protocol

from fastapi import FastAPI
from starlette.requests import Request as HTTPRequest
from starlette.responses import Response

from services.authentication import account, approving, idp, login, sessions
from services.authentication.account import Account
from services.authentication.approving import Approving
from services.authentication.enrolling import Enrolling
from services.authentication.idp import IdentityProvider
from services.authentication.login import Login
from services.authentication.pages import Pages
from services.authentication.passwords import Vault
from services.authentication.sessions import Sessions
from services.authentication.settings import Settings
from services.authentication.throttle import FairThrottle, Throttle
from services.authentication.visits import Entrance, Visit
from shared.contracts.base import R, Request
from shared.trust import Trust


class Store(sessions.Store, login.Store, approving.Store, account.Store, idp.Store, Protocol):
    """All that these pages keep."""


class Bus(Protocol):
    async def ask(self, request: Request[R]) -> R: ...


def add_signer_pages(
    app: FastAPI,
    requests: approving.Requests,
    *,
    store: Store,
    bus: Bus,
    trust: Trust,
    settings: Settings,
    now: Callable[[], datetime],
) -> None:
    """Log-in, approval, enrollment and account under their paths of `app`."""
    pages = Pages(service=settings.service_name, time_zone=settings.time_zone, rp_id=settings.rp_id)
    entrance = Entrance(
        pages,
        Sessions(
            store,
            https=settings.issuer.startswith("https:"),
            idle_s=settings.session_idle_s,
            lifetime_s=settings.session_lifetime_s,
            now=now,
        ),
        Throttle(attempts_max=settings.requests_burst, attempt_again_s=settings.request_again_s),
        now,
    )
    vault = Vault.load(settings.secrets_key_file) if settings.secrets_key_file else None
    service = settings.service_name

    async def static(request: HTTPRequest) -> Response:
        return pages.static(request.path_params["name"])

    app.add_api_route("/static/{name}", static, methods=["GET"], include_in_schema=False, response_model=None)
    _add_login(app, entrance, _login(store, bus, vault, settings, now))
    _add_approval(app, entrance, Approving(requests=requests, store=store, bus=bus, now=now))
    _add_enrollment(app, entrance, Enrolling(bus=bus, sealing_key=trust.sealing_key("sam"), service=service, now=now))
    _add_account(app, entrance, Account(store=store, bus=bus, vault=vault, service=service, now=now))
    if settings.idp.issuer:
        provider = IdentityProvider(
            settings.idp, issuer=settings.idp.issuer, own_address=settings.issuer, store=store, bus=bus, now=now
        )
        entrance.add(app, "GET", "/idp/start", provider.start)
        entrance.add(app, "GET", "/idp/callback", provider.callback)


def _login(store: Store, bus: Bus, vault: Vault | None, settings: Settings, now: Callable[[], datetime]) -> Login:
    return Login(
        store=store,
        bus=bus,
        vault=vault,
        throttle=Throttle(attempts_max=settings.attempts_max, attempt_again_s=settings.attempt_again_s),
        begun=FairThrottle(
            burst=settings.logins_burst, again_s=settings.login_again_s, together_per_s=settings.logins_per_s
        ),
        idp_name=settings.idp.name if settings.idp.issuer else None,
        now=now,
    )


def _add_login(app: FastAPI, entrance: Entrance, pages: Login) -> None:
    entrance.add(app, "GET", "/", _to_account)
    entrance.add(app, "GET", "/login", pages.show)
    entrance.add(app, "POST", "/login/begin", pages.begin)
    entrance.add(app, "POST", "/login/passkey", pages.by_passkey)
    entrance.add(app, "POST", "/login/password", pages.by_password)
    entrance.add(app, "POST", "/logout", pages.log_out)


def _add_approval(app: FastAPI, entrance: Entrance, pages: Approving) -> None:
    entrance.add(app, "GET", "/approve/{request_id}", pages.show)
    entrance.add(app, "POST", "/approve/{request_id}", pages.approve)
    entrance.add(app, "POST", "/approve/{request_id}/refuse", pages.refuse)


def _add_enrollment(app: FastAPI, entrance: Entrance, pages: Enrolling) -> None:
    entrance.add(app, "GET", "/enroll", pages.show)
    entrance.add(app, "POST", "/enroll/begin", pages.begin)
    entrance.add(app, "POST", "/enroll", pages.finish)


def _add_account(app: FastAPI, entrance: Entrance, pages: Account) -> None:
    entrance.add(app, "GET", "/account", pages.show)
    entrance.add(app, "GET", "/account/remove/{authenticator_id}", pages.ask_removal)
    entrance.add(app, "POST", "/account/remove/{authenticator_id}", pages.remove)
    entrance.add(app, "GET", "/account/password", pages.ask_password)
    entrance.add(app, "POST", "/account/password", pages.set_password)
    entrance.add(app, "POST", "/account/password/remove", pages.remove_password)


async def _to_account(visit: Visit) -> Response:
    return visit.go("/account")
