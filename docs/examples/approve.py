"""Has a file's hash approved by its signer, then signed: `python approve.py AUTH GATEWAY CLIENT CREDENTIAL FILE`.

The client's secret is read from CLIENT_SECRET. Its redirect URI is http://localhost:8765/back, or another in BACK.
"""

import base64
import hashlib
import json
import os
import secrets
import sys
import urllib.parse
import urllib.request
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

SHA256, ECDSA_SHA256 = "2.16.840.1.101.3.4.2.1", "1.2.840.10045.4.3.2"


def post(url: str, body: bytes, authorization: str, content_type: str) -> Any:
    headers = {"Authorization": authorization, "Content-Type": content_type}
    with urllib.request.urlopen(urllib.request.Request(url, body, headers)) as answer:  # noqa: S310 - the user's own
        return json.load(answer)


def wait_for(back: str) -> dict[str, str]:
    """The parameters that the signer's browser brings back."""
    came: dict[str, str] = {}
    address = urllib.parse.urlsplit(back)

    class Back(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = urllib.parse.urlsplit(self.path)
            if found.path == address.path:
                came.update(urllib.parse.parse_qsl(found.query))
            self.send_response(200 if came else 404)
            self.end_headers()
            self.wfile.write(b"Thank you. You may close this page.")

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - the base class's name
            pass  # the address holds the code

    with HTTPServer(("127.0.0.1", address.port or 80), Back) as server:
        while not came:
            server.handle_request()
    return came


def reference_code(client: str, *digests: bytes) -> str:
    """What the approval page shows as well: the signer compares the two before she approves."""
    content = b"rakkan-reference/1\0" + client.encode() + b"\0" + b"".join(digests)
    number = int.from_bytes(hashlib.sha256(content).digest(), "big")
    return "".join("23456789ABCDEFGHJKLMNPQRSTUVWXYZ"[number // 32**place % 32] for place in range(6))


def main(auth: str, gateway: str, client: str, credential: str, file: str) -> None:
    back = os.environ.get("BACK", "http://localhost:8765/back")
    basic = "Basic " + base64.b64encode(f"{client}:{os.environ['CLIENT_SECRET']}".encode()).decode()
    digest = base64.b64encode(hashlib.sha256(Path(file).read_bytes()).digest()).decode()

    def oauth(endpoint: str, **form: str) -> Any:
        body = urllib.parse.urlencode(
            {"client_id": client, "redirect_uri": back, "authorization_details": asked} | form
        )
        return post(f"{auth}/oauth2/{endpoint}", body.encode(), basic, "application/x-www-form-urlencoded")

    # 1. What is to be approved: every hash, with the label that the signer will see.
    asked = json.dumps(
        [
            {
                "type": "https://cloudsignatureconsortium.org/2025/credential",
                "credentialID": credential,
                "numSignatures": 1,
                "documentDigests": [{"label": Path(file).name, "hash": digest}],
                "hashAlgorithmOID": SHA256,
            }
        ]
    )
    state, verifier = secrets.token_urlsafe(16), secrets.token_urlsafe(48)
    challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
    pushed = oauth(
        "pushed_authorize",
        response_type="code",
        state=state,
        code_challenge=challenge,
        code_challenge_method="S256",
    )

    # 2. The signer goes there with her browser. You never see her passkey, and need not.
    query = urllib.parse.urlencode({"client_id": client, "request_uri": pushed["request_uri"]})
    print(f"The signer opens: {auth}/oauth2/authorize?{query}", flush=True)  # noqa: T201 - this is how you are told
    code = reference_code(client, base64.b64decode(digest))
    print(f"She compares the code on that page with yours: {code}", flush=True)  # noqa: T201 - likewise
    came = wait_for(back)
    if came.get("state") != state or came.get("iss") != auth or "code" not in came:
        sys.exit(f"Not approved: {came.get('error', 'an answer to another request')}")

    # 3. The token is good for exactly these hashes, once, for some minutes. It is used in place of a SAD.
    token = oauth("token", grant_type="authorization_code", code=came["code"], code_verifier=verifier)
    body = {
        "credentialID": credential,
        "hashes": [digest],
        "hashAlgorithmOID": SHA256,
        "signAlgo": ECDSA_SHA256,
    }
    url = f"{gateway}/csc/v2/signatures/signHash"
    signed = post(url, json.dumps(body).encode(), f"Bearer {token['access_token']}", "application/json")
    print(signed["signatures"][0])  # noqa: T201 - the result


if __name__ == "__main__":
    main(*sys.argv[1:])
