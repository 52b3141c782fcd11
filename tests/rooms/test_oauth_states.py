"""Requests, codes and tokens in any order: what must hold whatever clients, signers and thieves do."""

import asyncio
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from shared.errors import RakkanError
from tests.support.authentication import asked_by_operator
from tests.support.oauth import CALLBACK, VERIFIER, Partner, answer_of, authorization, new_world, signing

CLIENTS = ("web", "web-2")


class Flows(RuleBasedStateMachine):
    """Two clients, two browser sessions. The model knows what was issued, and what must be dead."""

    requests = Bundle("requests")
    codes = Bundle("codes")
    accesses = Bundle("accesses")
    refreshes = Bundle("refreshes")

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.world = self.run(new_world())
        self.partners = {client_id: Partner(self.world, client_id) for client_id in CLIENTS}
        self.session_of: dict[str, str] = {}
        self.ended: set[str] = set()
        self.spent: set[str] = set()
        self.dead: set[str] = set()
        self.family: dict[str, str] = {}
        self.accesses_of: dict[str, set[str]] = {}

    def run(self, story: Any) -> Any:
        return self.loop.run_until_complete(story)

    def teardown(self) -> None:
        for partner in self.partners.values():
            self.run(partner.http.aclose())
        self.loop.close()

    @rule(target=requests, client_id=st.sampled_from(CLIENTS), credential=st.booleans(), pushed=st.booleans())
    def ask(self, client_id: str, *, credential: bool, pushed: bool) -> tuple[str, str]:
        form = (signing if credential else authorization)(client_id=client_id)
        partner = self.partners[client_id]
        if pushed:
            answer = self.run(partner.push(**form))
            form = {"client_id": client_id, "request_uri": answer.json()["request_uri"]}
        return client_id, self.run(partner.ask(**form))

    @rule(asked=requests, session=st.sampled_from("ab"))
    def look(self, asked: tuple[str, str], session: str) -> None:
        request_id = asked[1]
        ended = request_id in self.ended
        first = self.session_of.get(request_id, session) if ended else self.session_of.setdefault(request_id, session)
        try:
            with asked_by_operator():
                self.run(self.world.oauth.requests.open(request_id, session_id=session))
            seen = True
        except RakkanError:
            seen = False
        assert seen == (not ended and first == session)

    @rule(target=codes, asked=requests, session=st.sampled_from("ab"), yes=st.booleans())
    def decide(self, asked: tuple[str, str], session: str, *, yes: bool) -> tuple[str, str] | None:
        client_id, request_id = asked
        first = self.session_of.setdefault(request_id, session) if request_id not in self.ended else None
        try:
            location = self.run(self._decide(request_id, session, yes=yes))
        except RakkanError:
            assert request_id in self.ended or first != session
            return None
        assert request_id not in self.ended
        assert first == session
        self.ended.add(request_id)
        told = answer_of(location)
        assert ("code" in told) == yes
        return (client_id, told["code"]) if yes else None

    async def _decide(self, request_id: str, session: str, *, yes: bool) -> str:
        with asked_by_operator():
            requests = self.world.oauth.requests
            request = await requests.open(request_id, session_id=session)
            if not yes:
                return str(await requests.denied(request_id, session_id=session))
            credential = request.scope == "credential"
            location: str = await requests.granted(
                request_id,
                session_id=session,
                tenant_id="acme",
                user_id="alice",
                authorization_id="a-1" if credential else None,
                credential_id="c-1" if credential else None,
            )
            return location

    @rule(
        target=refreshes,
        granted=codes,
        by=st.sampled_from(CLIENTS),
        verifier=st.sampled_from((VERIFIER, VERIFIER, VERIFIER, "w" * 43)),
    )
    def redeem(self, granted: tuple[str, str] | None, by: str, verifier: str) -> tuple[str, str, str] | None:
        if granted is None:
            return None
        owner, code = granted
        answer = self.run(self.partners[by].redeem(code, code_verifier=verifier, redirect_uri=CALLBACK))
        if by != owner or verifier != VERIFIER or code in self.spent:
            assert answer.status_code == 400
            if by == owner:
                if code in self.spent:
                    self._kill(code)
                self.spent.add(code)
            return None
        assert answer.status_code == 200
        self.spent.add(code)
        given = answer.json()
        self.accesses_of.setdefault(code, set()).add(given["access_token"])
        return (owner, code, given["refresh_token"]) if "refresh_token" in given else None

    @rule(target=refreshes, held=refreshes, by=st.sampled_from(CLIENTS))
    def refresh(self, held: tuple[str, str, str] | None, by: str) -> tuple[str, str, str] | None:
        if held is None:
            return None
        owner, code, text = held
        answer = self.run(self.partners[by].refresh(text))
        if by != owner or code in self.dead or text in self.spent:
            assert answer.status_code == 400
            if by == owner and code not in self.dead:
                self._kill(code)
            return None
        if answer.status_code == 429:
            return None
        assert answer.status_code == 200
        self.spent.add(text)
        given = answer.json()
        self.accesses_of[code].add(given["access_token"])
        return owner, code, given["refresh_token"]

    @rule(held=refreshes, by=st.sampled_from(CLIENTS))
    def revoke(self, held: tuple[str, str, str] | None, by: str) -> None:
        if held is None:
            return
        owner, code, text = held
        answer = self.run(self.partners[by].revoke(text))
        assert answer.status_code == (204 if by == owner else 400)
        if by == owner:
            self._kill(code)

    def _kill(self, code: str) -> None:
        self.dead.add(code)

    @invariant()
    def the_dead_are_dead_here_and_at_the_sam_and_the_others_live(self) -> None:
        told = {revocation.token_id for revocation in self.world.sam.revocations}
        for code, texts in self.accesses_of.items():
            for text in texts:
                token = self.partners["web"].read(text)
                try:
                    self.run(self.world.store.check_alive(token))
                    alive = True
                except RakkanError:
                    alive = False
                assert alive == (code not in self.dead)
                assert (token.token_id in told) == (code in self.dead)


TestFlows = Flows.TestCase
TestFlows.settings = settings(max_examples=12, stateful_step_count=20, deadline=None)
