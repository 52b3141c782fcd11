"""What the SAM does in its own HSM token: the PIN pepper, and the key its rows are sealed with."""

from typing import Protocol

PEPPER_LABEL = "sam-pepper"
ROWS_LABEL = "sam-rows"


class MACToken(Protocol):
    async def mac(self, label: str, data: bytes) -> bytes: ...


class SAMToken:
    """The pepper never leaves the HSM. The row key is derived in it at the start, and held in memory from then on."""

    def __init__(self, token: MACToken) -> None:
        self._token = token

    async def unseal_row_key(self) -> bytes:
        return await self._token.mac(ROWS_LABEL, b"rakkan-sam row key 1")

    async def pepper(self, signer_id: str, hashed_pin: bytes) -> bytes:
        """HMAC-SHA256 in the HSM over a PIN's Argon2id hash: with the database alone no PIN can be tried."""
        return await self._token.mac(PEPPER_LABEL, b"rakkan-pin/1\0" + signer_id.encode() + b"\0" + hashed_pin)
