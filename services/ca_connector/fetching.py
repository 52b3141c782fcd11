"""Revocation lists and OCSP answers, over HTTP. What they say is not known here.

Where they are is said by officers or by certificates of a CA: each address is asked at its own origin and nowhere else.
"""

from collections.abc import Callable
from urllib.parse import urlsplit

from services.ca_connector.client import Peer
from shared.errors import Code, RakkanError

_PEERS_MAX = 32
_OK = 200
_OCSP = "application/ocsp-request"
_OCSP_ANSWER = frozenset({"application/ocsp-response"})


class Fetching:
    def __init__(self, *, timeout_s: float, list_bytes_max: int, open_: Callable[..., Peer] = Peer.open) -> None:
        self._timeout_s = timeout_s
        self._list_bytes_max = list_bytes_max
        self._open = open_
        self._peers: dict[str, Peer] = {}

    async def fetch(self, url: str) -> bytes:
        peer = await self._peer(url)
        answer = await peer.request("GET", url)
        return _body(answer.status, answer.body)

    async def ask(self, url: str, request: bytes) -> bytes:
        peer = await self._peer(url)
        answer = await peer.request("POST", url, content=request, headers={"content-type": _OCSP}, expects=_OCSP_ANSWER)
        return _body(answer.status, answer.body)

    async def close(self) -> None:
        for peer in self._peers.values():
            await peer.close()
        self._peers.clear()

    async def _peer(self, url: str) -> Peer:
        parts = urlsplit(url)
        origin = f"{parts.scheme}://{parts.netloc}"
        if origin not in self._peers:
            if len(self._peers) >= _PEERS_MAX:
                await self.close()
            self._peers[origin] = self._open(
                origin, timeout_s=self._timeout_s, answer_bytes_max=self._list_bytes_max, connections_max=4
            )
        return self._peers[origin]


def _body(status: int, body: bytes) -> bytes:
    if status != _OK or not body:
        raise RakkanError(Code.AUTHORITY_UNAVAILABLE, f"HTTP status {status}, {len(body)} bytes")
    return body
