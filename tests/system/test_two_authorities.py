"""One service, two CAs of different protocols: credentials made over the CSC, used by pyHanko, renewed and ended."""

import asyncio
import base64
import hashlib
import json
import os
import re
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from deploy.local.authorities import SERVICES, credential_at
from deploy.local.document import write_document
from deploy.local.enrollment import Enrollment, Signer
from deploy.local.foreign import LOCAL_SERVICE, NAME, ForeignCA, anchors_of
from deploy.local.home import CHECKOUT
from deploy.local.partner import sign_pdf
from deploy.local.progress import Progress
from deploy.local.stack import Stack
from deploy.local.validators import validate
from tests.support.by_hand import ByHand
from tests.support.waiting import until

DIGEST = base64.b64encode(hashlib.sha256(b"a document").digest()).decode()
SHA256 = "2.16.840.1.101.3.4.2.1"
ONCE = {"once": "p256", "once-rsa": "rsa3072"}
"""Qualifier, and profile of the same name, to the kind of key. RSA keys come of the SVG's pool where it has one."""
SIGN_ALGORITHMS = {"p256": "1.2.840.10045.4.3.2", "rsa3072": "1.2.840.113549.1.1.11"}
BY_POST = "by-post"
_PATIENCE_S = 60.0


@dataclass
class Two:
    """The suite with both CAs, a partner's token and a signer with a PIN."""

    stack: Stack
    token: str
    signer: Signer
    by_post: ByHand
    """A third CA, which knows no protocol."""

    def url(self, service: str = "") -> str:
        base = self.stack.rooms.gateway_url
        return f"{base}/s/{service}" if service else base

    def call(self, method: str, service: str = "", **members: Any) -> tuple[int, dict[str, Any]]:
        request = urllib.request.Request(  # noqa: S310 - an http URL of our own stack
            f"{self.url(service)}/csc/v2/{method}",
            json.dumps(members).encode(),
            {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"},
            method="POST",
        )
        try:
            with urllib.request.urlopen(request, timeout=40) as answer:  # noqa: S310 - likewise
                return answer.status, json.loads(answer.read() or b"{}")
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())

    def info(self, credential_id: str) -> dict[str, Any]:
        status, shown = self.call("credentials/info", credentialID=credential_id, certificates="chain", certInfo=True)
        assert status == 200, shown
        return shown

    def created(self, service: str = LOCAL_SERVICE, **wanted: Any) -> str:
        members: dict[str, Any] = {"credentialCreationRequest": wanted, "userID": self.signer.user_id}
        status, made = self.call("credentials/create", service, **members)
        assert status == 201, made
        return str(made["credentialID"])

    def signed(self, credential_id: str) -> bytes:
        hashes: dict[str, Any] = {"hashes": [DIGEST], "hashAlgorithmOID": SHA256}
        factors = [{"id": "PIN", "value": self.signer.pin}]
        status, told = self.call(
            "credentials/authorize", credentialID=credential_id, numSignatures=1, authData=factors, **hashes
        )
        assert status == 200, told
        named: dict[str, Any] = {"credentialID": credential_id, "SAD": told["SAD"], "signAlgo": SIGN_ALGORITHMS["p256"]}
        status, told = self.call("signatures/signHash", **named, **hashes)
        assert status == 200, told
        return base64.b64decode(told["signatures"][0])

    def orders(self, *words: str) -> dict[str, dict[str, Any]]:
        """What the operator is shown of the orders at the CA by post."""
        argv, environment = self.stack.rooms.operator(["--json", "ca", "orders", "--authority", BY_POST, *words])
        identity = self.stack.rooms.account.identity()
        said = subprocess.run(argv, env=environment, cwd=CHECKOUT, capture_output=True, check=True, **identity)  # noqa: S603 - our own command
        return {row["order"]: row for row in json.loads(said.stdout)["orders"]}

    def wait(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _PATIENCE_S
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.25)


@pytest.fixture(scope="module")
async def two(suite: Stack, tmp_path_factory: pytest.TempPathFactory) -> Two:
    if not ForeignCA.is_installed():
        pytest.skip("cfssl is not installed: apt-get install golang-cfssl")
    return await asyncio.to_thread(_started, suite, ByHand(tmp_path_factory.mktemp("by-post")))


def _started(suite: Stack, by_post: ByHand) -> Two:
    enrollment, progress = Enrollment(suite), Progress()
    enrollment.make(progress)
    ForeignCA(suite).start()
    registry = suite.rooms.registry.read()
    registry.pop("version")
    profiles = registry["certification_authorities"]["local"]["profiles"]
    for name, key in ONCE.items():
        profiles[name] = {
            "label": "For one authorization",
            "signature_qualifier": name,
            "short_term": True,
            "validity_days_max": 1,
            "key_algorithms": [key],
        }
    profiles["by-hand"] = {"label": "By hand", "issuance": "external"}
    registry["certification_authorities"][BY_POST] = {
        "label": "Example CA by post",
        "protocol": "manual",
        "anchors": [by_post.root],
        "profiles": {"signing": {"label": "Document signing", "issuance": "external"}},
        "default_profile": "signing",
    }
    suite.rooms.registry.write(registry)
    two = Two(suite, enrollment.token(), enrollment.second_signer(progress), by_post)
    for service in SERVICES:
        credential_at(two.url(service), token=two.token, user_id=two.signer.user_id)
    return two


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("service", SERVICES)
async def test_pyhanko_chooses_the_ca_by_its_base_url_alone(
    two: Two, tmp_path: Path, service: str, version: str
) -> None:
    credential_id = await asyncio.to_thread(
        credential_at, two.url(service), token=two.token, user_id=two.signer.user_id
    )
    signed = await sign_pdf(
        write_document(now=datetime.now(UTC)),
        gateway_url=two.url(service),
        token=two.token,
        credential_id=credential_id,
        pin=two.signer.pin,
        version=version,
    )
    (tmp_path / "signed.pdf").write_bytes(signed)
    other = NAME if service == LOCAL_SERVICE else LOCAL_SERVICE
    for anchors, accepted in ((service, True), (other, False)):
        verdicts = await asyncio.to_thread(
            validate,
            signed,
            anchors_file=anchors_of(two.stack, anchors),
            tsa_anchors_file=two.stack.rooms.tsa_anchors_file,
        )
        assert {verdict.accepted for verdict in verdicts if verdict.validator != "pdfsig"} == {accepted}, verdicts


async def test_what_is_seen_through_one_base_url_is_not_seen_through_the_other(two: Two) -> None:
    seen: dict[str, set[str]] = {}
    for service in SERVICES:
        _, listed = await asyncio.to_thread(two.call, "credentials/list", service, userID=two.signer.user_id)
        seen[service] = set(listed["credentialIDs"])
    assert seen[NAME]
    assert seen[LOCAL_SERVICE]
    assert not seen[NAME] & seen[LOCAL_SERVICE]
    foreign = next(iter(seen[NAME]))
    status, refused = await asyncio.to_thread(two.call, "credentials/info", LOCAL_SERVICE, credentialID=foreign)
    assert (status, refused["error_description"]) == (400, "Invalid parameter credentialID")
    shown = await asyncio.to_thread(two.info, foreign)
    assert shown["issuance"]["certificationAuthority"] == NAME
    assert shown["description"] == "Document signing (A CA on cfssl)"
    assert "Demonstration" in shown["cert"]["subjectDN"]


async def test_a_credential_gets_a_new_key_and_is_then_ended(two: Two) -> None:
    credential_id = await asyncio.to_thread(two.created)
    before = (await asyncio.to_thread(two.info, credential_id))["cert"]
    assert (await asyncio.to_thread(two.call, "credentials/rekey", credentialID=credential_id))[0] == 202
    await asyncio.to_thread(two.wait, lambda: two.info(credential_id)["cert"]["serialNumber"] != before["serialNumber"])
    after = (await asyncio.to_thread(two.info, credential_id))["cert"]
    assert after["subjectDN"] == before["subjectDN"]
    keys = {_key(cert["certificates"][0]) for cert in (before, after)}
    assert len(keys) == 2
    for method, status in (("suspend", "disabled"), ("resume", "enabled")):
        assert (await asyncio.to_thread(two.call, f"credentials/{method}", credentialID=credential_id))[0] == 204
        assert (await asyncio.to_thread(two.info, credential_id))["key"]["status"] == status
    deletion: Any = {"credentialID": credential_id, "revoke": True, "revocationReason": 4}
    ended = await asyncio.to_thread(two.call, "credentials/delete", credentialDeletionRequest=deletion)
    assert ended[0] == 204
    await asyncio.to_thread(two.wait, lambda: two.call("credentials/info", credentialID=credential_id)[0] == 400)


def _key(certificate: str) -> bytes:
    key = x509.load_der_x509_certificate(base64.b64decode(certificate)).public_key()
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


async def test_a_renewal_keeps_the_key(two: Two) -> None:
    credential_id = await asyncio.to_thread(two.created)
    before = (await asyncio.to_thread(two.info, credential_id))["cert"]
    assert (await asyncio.to_thread(two.call, "credentials/renew", credentialID=credential_id))[0] == 202
    await asyncio.to_thread(two.wait, lambda: two.info(credential_id)["cert"]["serialNumber"] != before["serialNumber"])
    after = (await asyncio.to_thread(two.info, credential_id))["cert"]
    assert _key(after["certificates"][0]) == _key(before["certificates"][0])


@pytest.mark.parametrize("qualifier", ONCE)
async def test_a_key_is_made_for_one_authorization(two: Two, qualifier: str) -> None:
    factors = [{"id": "PIN", "value": two.signer.pin}]
    asked: dict[str, Any] = {"signatureQualifier": qualifier, "userID": two.signer.user_id, "numSignatures": 1}
    hashes: dict[str, Any] = {"hashes": [DIGEST], "hashAlgorithmOID": SHA256}
    status, told = await asyncio.to_thread(two.call, "credentials/authorize", **asked, **hashes, authData=factors)
    assert status == 200, told
    signing: dict[str, Any] = {
        "credentialID": told["credentialID"],
        "SAD": told["SAD"],
        "signAlgo": SIGN_ALGORITHMS[ONCE[qualifier]],
    }
    status, signed = await asyncio.to_thread(two.call, "signatures/signHash", **signing, **hashes)
    assert status == 200, signed
    again = await asyncio.to_thread(two.call, "signatures/signHash", **signing, **hashes)
    assert again == (200, signed)
    wrong = [{"id": "PIN", "value": "000000"}]
    status, refused = await asyncio.to_thread(two.call, "credentials/authorize", **asked, **hashes, authData=wrong)
    assert (status, refused["error"]) == (400, "invalid_authentication_data")


async def test_an_rsa_key_for_one_authorization_comes_of_the_pool(two: Two) -> None:
    administrator = await two.stack.postgres.connect()

    async def pooled() -> set[bytes]:
        rows = await administrator.fetch("select public_key from svg.key_pool where key_algorithm = 'rsa3072'")
        return {row["public_key"] for row in rows}

    async def is_filled() -> bool:
        return bool(await pooled())

    try:
        await until(is_filled, within_s=_PATIENCE_S)
        before = await pooled()
        asked: dict[str, Any] = {"signatureQualifier": "once-rsa", "userID": two.signer.user_id, "numSignatures": 1}
        asked |= {"hashes": [DIGEST], "hashAlgorithmOID": SHA256, "authData": [{"id": "PIN", "value": two.signer.pin}]}
        status, told = await asyncio.to_thread(two.call, "credentials/authorize", **asked)
        assert status == 200, told
        shown = await asyncio.to_thread(two.info, told["credentialID"])
        key = _key(shown["cert"]["certificates"][0])
        assert key in before
        assert key not in await pooled()
    finally:
        await administrator.close()


async def test_who_can_wait_gets_a_handle_and_a_certificate_by_hand_is_checked(two: Two) -> None:
    wanted = {"certificationAuthority": "local", "certificateProfile": "by-hand"}
    members: dict[str, Any] = {
        "credentialCreationRequest": wanted,
        "userID": two.signer.user_id,
        "operationMode": "A",
    }
    status, told = await asyncio.to_thread(two.call, "credentials/create", **members)
    assert (status, told["handle"]) == (202, told["credentialID"])
    await asyncio.to_thread(
        two.wait, lambda: two.call("credentials/createCheck", handle=told["handle"])[0] in (200, 400)
    )


async def test_a_certificate_that_a_partner_brings_signs_and_is_known_to_the_operator(two: Two) -> None:
    await asyncio.to_thread(_bring_and_end, two)


def _bring_and_end(two: Two) -> None:
    asked: dict[str, Any] = {"userID": two.signer.user_id, "operationMode": "A"}
    wanted: Any = {"certificationAuthority": BY_POST}
    # The rooms take up the registry one by one.
    two.wait(lambda: two.call("credentials/create", credentialCreationRequest=wanted, **asked)[0] == 202)
    _, made = two.call("credentials/create", credentialCreationRequest=wanted, **asked)
    credential_id = made["credentialID"]
    two.wait(lambda: two.call("credentials/csr", credentialID=credential_id)[0] == 200)
    _, told = two.call("credentials/csr", credentialID=credential_id)
    two.wait(lambda: two.orders().get(credential_id, {}).get("state") == "pending")
    issued = two.by_post.issue(base64.b64decode(told["csr"]))
    chain = [x509.load_pem_x509_certificate(file.read_bytes()) for file in (issued, two.by_post.issuing)]
    certificates = [base64.b64encode(one.public_bytes(Encoding.DER)).decode() for one in chain]
    status, refused = two.call("credentials/certificate", credentialID=credential_id, certificates=certificates)
    assert status == 204, refused
    key = chain[0].public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    key.verify(two.signed(credential_id), b"a document", ec.ECDSA(hashes.SHA256()))
    two.wait(lambda: credential_id in two.orders("--state", "confirmed"))
    assert two.orders("--state", "confirmed")[credential_id]["serial"] == f"{chain[0].serial_number:x}"
    deletion: Any = {"credentialID": credential_id, "revoke": True, "revocationReason": 4}
    assert two.call("credentials/delete", credentialDeletionRequest=deletion)[0] == 204
    two.wait(lambda: "by hand" in (two.orders().get(credential_id, {}).get("not revoked") or ""))


async def test_a_client_that_names_no_ca_of_ours_gets_none(two: Two) -> None:
    for wanted in ({"certificationAuthority": "nobody"}, {"certificatePolicy": "2.9"}):
        members: dict[str, Any] = {"credentialCreationRequest": wanted, "userID": two.signer.user_id}
        assert (await asyncio.to_thread(two.call, "credentials/create", **members))[0] == 400


async def test_the_example_of_the_page_runs_as_it_stands(two: Two) -> None:
    page = (Path(__file__).parents[2] / "docs" / "partners" / "credentials.md").read_text(encoding="utf-8")
    (script,) = re.findall(r"```sh\n(call\(\).*?)```", page, re.DOTALL)
    environment = {"GATEWAY": two.url(), "TOKEN": two.token, "USER_ID": two.signer.user_id, "PATH": os.environ["PATH"]}
    done = await asyncio.to_thread(
        subprocess.run, ["sh", "-euc", script], env=environment, capture_output=True, text=True, check=True, timeout=90
    )
    assert '"ignored": ["subjectData"]' in done.stdout
    assert '"certificationAuthority": "local", "certificateProfile": "signing"' in done.stdout
    assert "Anybody" not in done.stdout
    assert "error" not in done.stdout
