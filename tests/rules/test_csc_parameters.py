"""Whatever JSON a client sends: it becomes a message to a room or a refusal with words, never a fault."""

import asyncio
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from services.gateway.csc import v1, v2
from services.gateway.csc.encoding import encode_base64
from services.gateway.csc.facade import Facade, Limits, Method
from services.gateway.csc.parameters import read_body
from services.gateway.handlers import Caller, Handlers
from services.gateway.issuing import Issuing
from services.gateway.refusals import CSCError, refusal_of
from services.gateway.selection import Selection
from shared.contracts.base import Message
from shared.errors import Code, RakkanError
from shared.registry import Registry
from shared.tokens import AccessToken
from shared.trust import Trust

_NOW = datetime(2026, 1, 1, tzinfo=UTC)
CALLER = Caller("token", AccessToken("j", "i", "acme", "t1", "service", _NOW, _NOW), Selection(Registry(version=1)))
METHODS = [(facade, method) for facade in (v1.FACADE, v2.FACADE) for method in facade.methods]
IDS = [f"{facade.version} {method.name}" for facade, method in METHODS]
KEY = X25519PrivateKey.generate()
TRUST = Trust(epoch=1, verifying={}, sealing={"sam": KEY.public_key(), "authentication": KEY.public_key()})

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(min_value=-2, max_value=3),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=300),
    st.sampled_from(["demo", "S", "chain", "PIN", "1.2.840.113549.1.1.10", "2.16.840.1.101.3.4.2.1", "MEQ=", "AA"]),
    st.binary(min_size=32, max_size=32).map(encode_base64),
)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner))
ALL_NAMES = sorted(
    {name for _, method in METHODS for name in method.example}
    | {"signAlgoParams", "PIN", "OTP", "authData", "description", "clientData", "operationMode", "maxResults"}
    | {"pageToken", "validity_period", "response_uri", "lang", "certificates", "credentialInfo", "onlyValid", "nonce"}
)


class Listening:
    """A bus on which nobody is there, that keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Message] = []

    async def ask(self, request: Any) -> Any:
        self.asked.append(request)
        raise RakkanError(Code.UNAVAILABLE)


@pytest.mark.parametrize(("facade", "method"), METHODS, ids=IDS)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_members_become_a_message_or_a_refusal(facade: Facade, method: Method, data: st.DataObject) -> None:
    changed = data.draw(st.dictionaries(st.sampled_from(ALL_NAMES), VALUES, max_size=4))
    body = json.dumps(dict(method.example) | changed).encode()
    bus = Listening()
    handlers = Handlers(bus, trust=TRUST, sealing_key=KEY)
    code = None
    try:
        call = method.read(read_body(body), Limits(hashes_max=250, extension=True))
        asyncio.run(_act(bus, handlers, call))
    except CSCError as error:
        refusal = error.refusal
    except RakkanError as error:
        code = error.code
        refusal = refusal_of(code, facade.version, method.name)
    assert (code is Code.UNAVAILABLE) is bool(bus.asked)
    assert refusal.status in (400, 503)
    assert refusal.description


async def _act(bus: Listening, handlers: Handlers, call: Any) -> None:
    actions = {**handlers.actions(), **Issuing(bus, handlers, wait_s=0.1).actions()}
    await actions[type(call)](CALLER, call)


@pytest.mark.parametrize(("facade", "method"), METHODS, ids=IDS)
def test_every_example_on_the_page_of_methods_is_good(facade: Facade, method: Method) -> None:
    assert facade.version in ("v1", "v2")
    method.read(read_body(json.dumps(method.example).encode()), Limits(hashes_max=250, extension=True))
