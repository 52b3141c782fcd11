"""A mail server over a real socket (RFC 5321) that can be of every mood, and the mails it took."""

import asyncio
import base64
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Literal

Mood = Literal["good", "silent", "drips", "refuses", "greylists", "hangs_up", "full", "forgets"]


@dataclass
class MailServer:
    mood: Mood = "good"
    context: ssl.SSLContext | None = None
    credentials: str | None = None
    mails: list[tuple[str, EmailMessage]] = field(default_factory=list)
    connections: int = 0
    port: int = 0
    refused: frozenset[str] = frozenset()
    """Recipients it does not know."""

    @asynccontextmanager
    async def serving(self, *, implicit: bool = False) -> AsyncIterator["MailServer"]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self.context if implicit else None)
        self.port = server.sockets[0].getsockname()[1]
        async with asyncio.TaskGroup() as group:
            self._group = group
            yield self
            server.close()
            for task in self._tasks:
                task.cancel()
        await server.wait_closed()

    def __post_init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
        self.connections += 1
        try:
            await self._talk(reader, writer)
        except (ConnectionError, asyncio.CancelledError, ssl.SSLError):
            return
        finally:
            writer.close()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.mood == "silent":
            await asyncio.sleep(60)
        if self.mood == "drips":
            for character in b"220 " + b"x" * 5000:
                writer.write(bytes([character]))
                await writer.drain()
                await asyncio.sleep(0.05)
        recipient = ""
        writer.write(b"421 busy\r\n" if self.mood == "full" else b"220 mail.test ESMTP\r\n")
        while line := (await reader.readline()).decode().strip():
            verb = line.split(" ", 1)[0].upper()
            if verb == "QUIT":
                writer.write(b"221 bye\r\n")
                await writer.drain()
                return
            if verb == "STARTTLS":
                writer.write(b"220 go\r\n")
                await writer.start_tls(self.context or ssl.create_default_context())
                continue
            if verb == "DATA":
                if not await self._take(reader, writer, recipient):
                    return
                continue
            if verb == "RCPT":
                recipient = line.split("<", 1)[1].split(">", 1)[0]
            writer.write(self._answer(verb, line, recipient))
            await writer.drain()

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, recipient: str) -> bool:
        writer.write(b"354 go on\r\n")
        body = (await reader.readuntil(b"\r\n.\r\n"))[:-5]
        if self.mood == "hangs_up":
            return False
        self.mails.append((recipient, message_from_bytes(body, policy=policy.default)))
        if self.mood == "forgets":  # took it, and the answer is lost
            return False
        writer.write(b"250 taken\r\n")
        await writer.drain()
        return True

    def _answer(self, verb: str, line: str, recipient: str) -> bytes:
        if verb == "EHLO":
            more = [b"250-STARTTLS"] if self.context else []
            return b"\r\n".join([b"250-mail.test", *more, b"250 AUTH PLAIN", b""])
        if verb == "AUTH":
            given = base64.b64decode(line.split(" ")[2]).decode()
            return b"235 welcome\r\n" if given == f"\0{self.credentials}" else b"535 wrong\r\n"
        if verb == "RCPT" and (self.mood == "refuses" or recipient in self.refused):
            return b"550 no such person\r\n"
        if verb == "RCPT" and self.mood == "greylists":
            return b"451 later\r\n"
        return b"250 fine\r\n"
