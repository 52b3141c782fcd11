"""An act of the demo: one signer at two certification authorities of different protocols, chosen by URL alone."""

import asyncio
import json
import time
from typing import Any

from deploy.local.document import write_document
from deploy.local.enrollment import Enrollment
from deploy.local.foreign import LOCAL_SERVICE, NAME, PACKAGE, ForeignCA, anchors_of
from deploy.local.partner import post, sign_pdf
from deploy.local.program import StackError
from deploy.local.progress import Progress
from deploy.local.stack import Stack
from deploy.local.validators import validate

SERVICES = {LOCAL_SERVICE: "our own CA", NAME: "cfssl, which we did not write"}
_PATIENCE_S = 30.0


def run(stack: Stack, progress: Progress, *, token: str, now: Any) -> None:
    """Leaves everything running. StackError when anything is not as it should be."""
    progress.say("\nOne signer at two certification authorities:")
    if not ForeignCA.is_installed():
        progress.say(f"  left out: it needs a CA of others. To see it: apt-get install {PACKAGE}")
        return
    with progress.step("another CA is started (cfssl), and the officers put it in the registry"):
        ForeignCA(stack).start()
    signer = Enrollment(stack).second_signer(progress)
    for service, what in SERVICES.items():
        url = f"{stack.rooms.gateway_url}/s/{service}"
        with progress.step(f"a credential from {what}, by the base URL {url}"):
            credential_id = credential_at(url, token=token, user_id=signer.user_id)
        with progress.step("pyHanko signs through the same base URL"):
            signed = asyncio.run(
                sign_pdf(
                    write_document(now=now), gateway_url=url, token=token, credential_id=credential_id, pin=signer.pin
                )
            )
        _judge(stack, signed, service, progress)


def credential_at(url: str, *, token: str, user_id: str) -> str:
    """The signer's credential at the CA behind this base URL, made when there is none (CSC 2.2)."""
    listed = _call(url, "credentials/list", token, {"userID": user_id, "onlyValid": True})
    if listed["credentialIDs"]:
        found: str = listed["credentialIDs"][0]
        return found
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            made = _call(url, "credentials/create", token, {"credentialCreationRequest": {}, "userID": user_id})
        except StackError:
            # The rooms take up a new registry one by one.
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)
            continue
        credential_id: str = made["credentialID"]
        return credential_id


def _judge(stack: Stack, signed: bytes, service: str, progress: Progress) -> None:
    """It leads to the one CA, and not to the other."""
    tsa_anchors = stack.rooms.tsa_anchors_file
    own = validate(signed, anchors_file=anchors_of(stack, service), tsa_anchors_file=tsa_anchors)
    other_service = next(name for name in SERVICES if name != service)
    other = validate(signed, anchors_file=anchors_of(stack, other_service), tsa_anchors_file=tsa_anchors)
    wrong = [f"{one.validator}: {one.words}" for one in own if not one.accepted]
    # pdfsig is not told of any CA.
    wrong += [
        f"{one.validator} accepts it for {other_service}" for one in other if one.accepted and one.validator != "pdfsig"
    ]
    if wrong:
        raise StackError(f"Not the verdict that was expected: {'; '.join(wrong)}")
    progress.say(f"    it chains to {SERVICES[service]}, and not to the other: {', '.join(v.validator for v in own)}")


def _call(url: str, method: str, token: str, parameters: dict[str, Any]) -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    return post(f"{url}/csc/v2/{method}", json.dumps(parameters).encode(), headers)
