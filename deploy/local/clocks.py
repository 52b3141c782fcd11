"""An act of the demo: a time-stamping authority dies before the reader's eyes, and what its users notice."""

import base64
import hashlib
import json
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from deploy.local.program import StackError
from deploy.local.progress import Progress
from deploy.local.registry import CLASS, MACHINES
from deploy.local.stack import Stack

_PATIENCE_S = 90.0
_SHA256 = "2.16.840.1.101.3.4.2.1"


def run(stack: Stack, progress: Progress, *, token: str, document: bytes) -> None:
    """Leaves everything running. StackError when anything is not as it should be."""
    progress.say("\nA time-stamping authority dies:")
    clocks = _Clocks(stack, progress, token, document)
    clocks.wait_for_all()
    first = clocks.stamped(f"a time-stamp of the class `{CLASS}`")
    try:
        with progress.step(f"the authority `{first}` is killed (SIGKILL)"):
            stack.rooms.tsas[first].kill()
        other = clocks.stamped(f"the same request again: the class `{CLASS}` still has one")
        if other == first:
            raise StackError(f"`{first}` was killed, and still a token comes of it")
        clocks.stamped_for_openssl(other)
        clocks.refused(first)
    finally:
        with progress.step(f"the authority `{first}` is started again"):
            stack.rooms.start_tsa(first)


class _Clocks:
    """What a partner sees of them, and what OpenSSL says."""

    def __init__(self, stack: Stack, progress: Progress, token: str, document: bytes) -> None:
        self._rooms = stack.rooms
        self._progress = progress
        self._token = token
        self._document = document

    def wait_for_all(self) -> None:
        """An earlier demo may have killed one so lately that it is still set aside."""
        with self._progress.step("the authorities of the stack all stamp"):
            deadline = time.monotonic() + _PATIENCE_S
            for authority in self._rooms.tsas:
                while (told := self._ask(timeStampingAuthority=authority))[0] != 200:  # noqa: PLR2004 - HTTP's OK
                    if time.monotonic() > deadline:
                        raise StackError(f"`{authority}` does not stamp: {told[0]} {json.dumps(told[1])}")
                    time.sleep(0.5)

    def stamped(self, what: str) -> str:
        """A token by the CSC, of whichever authority of the class."""
        with self._progress.step(what):
            status, answer = self._ask(timeStampingClass=CLASS)
            if status != 200:  # noqa: PLR2004 - HTTP's OK
                raise StackError(f"No time-stamp: {status} {json.dumps(answer)}")
            authority: str = answer["timeStampingAuthority"]
            self._verify(authority, "-token_in", base64.b64decode(answer["timestamp"]))
        self._progress.say(f"    it came from `{authority}`, and `openssl ts -verify` accepts it")
        return authority

    def stamped_for_openssl(self, authority: str) -> None:
        """A token by RFC 3161 alone, as `openssl ts` and jarsigner ask for one."""
        url = f"{self._rooms.gateway_url}/s/{MACHINES}/tsa"
        with self._progress.step(f"a program that knows RFC 3161 alone asks {url}"):
            with tempfile.TemporaryDirectory(prefix="rakkan-") as folder:
                (Path(folder) / "document").write_bytes(self._document)
                query = ["openssl", "ts", "-query", "-data", "document", "-sha256", "-cert"]
                made = subprocess.run(query, cwd=folder, capture_output=True, check=True).stdout
            headers = {"Content-Type": "application/timestamp-query"}
            request = urllib.request.Request(url, made, headers, method="POST")  # noqa: S310 - our own loopback URL
            with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - likewise
                reply = answer.read()
            self._verify(authority, "", reply)
        self._progress.say(f"    it came from `{authority}` too")

    def refused(self, authority: str) -> None:
        """A name is a name: nobody else is asked in its place."""
        with self._progress.step(f"asked for `{authority}` by its name"):
            status, answer = self._ask(timeStampingAuthority=authority)
            if status != 503:  # noqa: PLR2004 - what a dead one is
                raise StackError(f"`{authority}` was killed, and the answer is {status} {json.dumps(answer)}")
        self._progress.say(f"    refused: {status} {answer['error_description']}")

    def _ask(self, **named: str) -> tuple[int, dict[str, Any]]:
        digest = base64.b64encode(hashlib.sha256(self._document).digest()).decode()
        body = json.dumps({"hash": digest, "hashAlgo": _SHA256, **named}).encode()
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"}
        url = f"{self._rooms.gateway_url}/csc/v2/signatures/timestamp"
        request = urllib.request.Request(url, body, headers, method="POST")  # noqa: S310 - our own loopback URL
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - likewise
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())

    def _verify(self, authority: str, kind: str, stamped: bytes) -> None:
        with tempfile.TemporaryDirectory(prefix="rakkan-") as folder:
            (Path(folder) / "document").write_bytes(self._document)
            (Path(folder) / "stamped").write_bytes(stamped)
            argv = ["openssl", "ts", "-verify", "-data", "document", "-in", "stamped", *([kind] if kind else [])]
            argv += ["-CAfile", str(self._rooms.anchors_file_of(authority))]
            done = subprocess.run(argv, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise StackError(f"openssl does not accept the time-stamp of `{authority}`:\n{done.stdout}{done.stderr}")
