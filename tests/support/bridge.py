"""RFC 3161 in front of `signatures/timestamp`, so that a client that knows no CSC reaches the method of the CSC.

It asks for what the query asks for, and reads nothing with the gateway's own code.
"""

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
from asn1crypto import cms, core, tsp
from starlette.types import Receive, Scope, Send

from shared.http import HTTPDoor, serve_http


class Bridge:
    def __init__(self, http: httpx.AsyncClient, url: str, token: str) -> None:
        self._http = http
        self._url = url
        self._headers = {"Authorization": f"Bearer {token}"}
        self.answers: list[httpx.Response] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body, more = b"", scope["type"] == "http"
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        reply = await self._reply(tsp.TimeStampReq.load(body))
        headers = [(b"content-type", b"application/timestamp-reply"), (b"content-length", str(len(reply)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": reply})

    async def _reply(self, query: tsp.TimeStampReq) -> bytes:
        imprint = query["message_imprint"]
        parameters: dict[str, object] = {
            "hash": base64.b64encode(imprint["hashed_message"].native).decode(),
            "hashAlgo": imprint["hash_algorithm"]["algorithm"].dotted,
            "certReq": query["cert_req"].native,
        }
        if not isinstance(query["nonce"], core.Void):
            parameters["nonce"] = f"{query['nonce'].native:x}"
        if not isinstance(query["req_policy"], core.Void):
            parameters["reqPolicy"] = query["req_policy"].dotted
        answer = await self._http.post(self._url, json=parameters, headers=self._headers)
        self.answers.append(answer)
        assert answer.status_code == 200, answer.text
        token = cms.ContentInfo.load(base64.b64decode(answer.json()["timestamp"]))
        return bytes(tsp.TimeStampResp({"status": {"status": "granted"}, "time_stamp_token": token}).dump())


@asynccontextmanager
async def bridged(http: httpx.AsyncClient, *, base_url: str, version: str, token: str) -> AsyncIterator[str]:
    """The address of a bridge to the method at this base URL."""
    bridge = Bridge(http, f"{base_url}/csc/{version}/signatures/timestamp", token)
    async with serve_http(bridge, HTTPDoor(leave_s=0)) as port:
        yield f"http://127.0.0.1:{port}/"
