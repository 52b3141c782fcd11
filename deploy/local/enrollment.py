"""The demo's tenant, client, signer and credential: made through the operator's door, found again by the next run."""

import secrets
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from deploy.local.home import CHECKOUT
from deploy.local.partner import Client, call, get_token
from deploy.local.program import StackError
from deploy.local.progress import Progress
from deploy.local.registry import TENANT
from deploy.local.stack import Stack

SIGNER = "hanako"
SECOND_SIGNER = "sakura"
CREDENTIAL = "hanako-p256"
APPROVED_CREDENTIAL = "hanako-page"
"""Approved by passkey on the page of authentication; no PIN opens it."""


@dataclass(frozen=True)
class Signer:
    user_id: str
    pin: str = field(repr=False)


class Enrollment:
    """Secrets lie in `.run/demo`: the signer's PIN and passkey, and the clients' secrets."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._folder = stack.rooms.account.folder(stack.folder / "demo")

    @property
    def pin_file(self) -> Path:
        return self._folder / "pin"

    @property
    def pin(self) -> str:
        return self.pin_file.read_text().strip()

    @property
    def passkey_file(self) -> Path:
        return self._folder / "passkey.json"

    def client(self) -> Client | None:
        """The client of an earlier run; one whose secret was not kept is of no use."""
        return self._kept("demo-app-*.secret")

    def page_client(self) -> Client:
        """The client that sends signers to the approval page."""
        client = self._kept("demo-page-*.secret")
        if client is None:
            raise StackError("the demo's client for the approval page has no secret")
        return client

    def _kept(self, pattern: str) -> Client | None:
        for file in sorted(self._folder.glob(pattern)):
            secret = file.read_text().strip()
            if secret:
                return Client(file.stem, secret)
        return None

    def token(self) -> str:
        client = self.client()
        if client is None:
            raise StackError("the demo's client has no secret")
        return get_token(self._stack.rooms.authentication_url, client)

    def is_done(self) -> bool:
        """Whether the credential can be used: the partners' own door is asked, as a partner would."""
        if self.client() is None or not self.pin_file.exists():
            return False
        listed = call(self._stack.rooms.gateway_url, "credentials/list", self.token(), {"userID": SIGNER})
        return CREDENTIAL in listed["credentialIDs"]

    def is_done_for_the_page(self) -> bool:
        if self._kept("demo-page-*.secret") is None:
            return False
        listed = call(self._stack.rooms.gateway_url, "credentials/list", self.token(), {"userID": SIGNER})
        return APPROVED_CREDENTIAL in listed["credentialIDs"]

    def make_for_the_page(self, redirect_uris: Sequence[str], progress: Progress) -> None:
        """What the second act needs beside it."""
        with progress.step(f"operator: the credential `{APPROVED_CREDENTIAL}` for the page, and a client to ask there"):
            if self._kept("demo-page-*.secret") is None:
                self._add_client("demo-page", *(word for uri in redirect_uris for word in ("--redirect-uri", uri)))
            words = ["--tenant", TENANT, "--user", SIGNER, "--assurance", "SCAL2-passkey"]
            self._operate("add-credential", APPROVED_CREDENTIAL, *words, "--description", "Agreements", "--wait", "60")

    def ticket(self) -> str:
        """The address at which the signer enrolls a passkey: good once."""
        file = self._folder / f"ticket-{secrets.token_hex(4)}"
        self._operate("ticket", SIGNER, "--tenant", TENANT, "--secret-file", str(file))
        address = file.read_text().strip()
        file.unlink()
        return address

    def make(self, progress: Progress) -> None:
        """Everything that is missing."""
        with progress.step(f"operator: the tenant `{TENANT}` and its client, a program of a partner"):
            self._operate("add-tenant", TENANT, "--name", "Demonstration")
            if self.client() is None:
                self._add_client("demo-app")
        with progress.step(f"operator: the signer `{SIGNER}`, with a PIN"):
            if not self.pin_file.exists():
                self._stack.rooms.account.write(self.pin_file, f"{secrets.randbelow(10**8):08d}\n")
            names = ["--name", "Hanako Yamada", "--organization", "Demonstration"]
            self._operate(
                "add-signer", SIGNER, "--tenant", TENANT, *names, "--pin-file", str(self.pin_file), may_exist=True
            )
        with progress.step(f"operator: the credential `{CREDENTIAL}`: key made in the HSM, certificate issued"):
            self._operate("add-credential", CREDENTIAL, "--tenant", TENANT, "--user", SIGNER, "--wait", "60")

    def second_signer(self, progress: Progress) -> "Signer":
        """One who has a PIN, and whose credentials come over the partners' door."""
        pin_file = self._folder / f"{SECOND_SIGNER}.pin"
        with progress.step(f"operator: the signer `{SECOND_SIGNER}`, with a PIN"):
            if not pin_file.exists():
                self._stack.rooms.account.write(pin_file, f"{secrets.randbelow(10**8):08d}\n")
            names = ["--name", "Sakura Sato", "--organization", "Demonstration", "--pin-file", str(pin_file)]
            self._operate("add-signer", SECOND_SIGNER, "--tenant", TENANT, *names, may_exist=True)
        return Signer(SECOND_SIGNER, pin_file.read_text().strip())

    def _add_client(self, kind: str, *words: str) -> None:
        """Its secret is shown once: one that was lost on the way leaves a client behind that nobody can use."""
        name = f"{kind}-{secrets.token_hex(2)}"
        secret_file = str(self._folder / f"{name}.secret")
        named = ["--tenant", TENANT, "--name", "Demo program"]
        self._operate("add-client", name, *named, *words, "--secret-file", secret_file)

    def _operate(self, *words: str, may_exist: bool = False) -> None:
        argv, environment = self._stack.rooms.operator(words)
        identity = self._stack.rooms.account.identity()
        done = subprocess.run(
            argv, env=environment, cwd=CHECKOUT, capture_output=True, text=True, check=False, timeout=120, **identity
        )
        if done.returncode != 0 and not (may_exist and "conflict" in done.stderr.lower()):
            raise StackError(f"./rakkan operator {' '.join(words)}\n{done.stdout}{done.stderr}")
