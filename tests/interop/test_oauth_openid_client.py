"""openid-client (npm) through the whole of FAPI 2.0 against authentication as it is served, and dpop's proofs."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from shared.dpop import ReplayMemory, check_proof
from tests.support.npm import installed
from tests.support.oauth import CALLBACK, DIGEST, KEY, SHA256_OID, b64
from tests.support.served import Served, serve

RESOURCE = "https://rssp.example/csc/v2/signatures/signHash"
DETAILS: list[dict[str, Any]] = [
    {
        "type": "https://cloudsignatureconsortium.org/2025/credential",
        "credentialID": "c-1",
        "numSignatures": 1,
        "documentDigests": [{"hash": b64(DIGEST), "label": "\u5951\u7d04\u66f8.pdf", "hashType": "dtbsr"}],
        "hashAlgorithmOID": SHA256_OID,
    }
]


@pytest.fixture(scope="session")
def packages() -> Path:
    return installed(Path(__file__).parent / "openid_client")


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    async with serve() as served:
        yield served


async def test_openid_client_goes_the_whole_way_of_fapi_2(packages: Path, served: Served) -> None:
    told = {
        "issuer": served.issuer,
        "client_id": "bank",
        "redirect_uri": CALLBACK,
        "key": KEY.as_dict(private=True),
        "details": DETAILS,
        "resource": RESOURCE,
    }
    process = await asyncio.create_subprocess_exec(
        "node",
        "flow.mjs",
        cwd=packages,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, complaint = await asyncio.wait_for(process.communicate(json.dumps(told).encode()), timeout=60)
    assert process.returncode == 0, complaint.decode()
    seen = json.loads(output)

    assert seen["front_channel"] == ["client_id", "request_uri"]
    assert seen["back"] == ["code", "iss", "state"]
    assert {seen[name]["token_type"] for name in ("service", "refreshed", "credential", "own")} == {"dpop"}
    assert seen["refreshed"]["same"] is True
    service = served.read(seen["service"]["access_token"])
    assert (service.user_id, service.scope) == ("alice", "service")
    assert service.key_thumbprint == served.read(seen["credential"]["access_token"]).key_thumbprint is not None
    credential = served.read(seen["credential"]["access_token"])
    assert (credential.authorization_id, credential.credential_id) == ("a-1", "c-1")
    assert seen["credential"]["authorization_details"] == DETAILS
    assert seen["credential"]["expires_in"] <= 300
    assert seen["credential"]["refresh_token"] is None

    assert seen["reused_code"] == "invalid_grant"
    assert seen["refresh_after_reuse"] == "invalid_grant"
    assert service.token_id in {revocation.token_id for revocation in served.world.sam.revocations}
    assert "iss" in seen["forged_issuer"]
    assert seen["wrong_verifier"] == "invalid_grant"
    assert seen["without_proof"] == "invalid_dpop_proof"
    assert seen["front_channel_only"] == "invalid_request"

    check_proof(
        seen["proof"]["text"],
        method="POST",
        url=RESOURCE,
        access_token=seen["own"]["access_token"],
        key_thumbprint=seen["proof"]["thumbprint"],
        now=datetime.now(UTC),
        seen=ReplayMemory(),
    )
