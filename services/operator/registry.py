"""The officers' tool: make an officer's key, check a registry of trust services, sign it. Needs no suite that runs.

An officer works where her key is, which is not where the suite is: so nothing here reads the suite's settings.
"""

import argparse
import base64
import difflib
import getpass
import json
import sys
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from services.operator.terminal import NotUnderstoodError, SecretFile, Terminal
from services.operator.words import describe
from shared.errors import RakkanError
from shared.registry import Registry
from shared.registry.signing import check_registry, sign, signers_of
from shared.trust import Trust, key_id_of

DONE, REFUSED, NOT_UNDERSTOOD = 0, 1, 2


def main(arguments: list[str]) -> int:
    words = _parser().parse_args(arguments)
    terminal = Terminal(as_json=words.json)
    try:
        {"new-officer": _new_officer, "check": _check, "sign": _sign}[words.command](words, terminal)
    except RakkanError as refusal:
        terminal.progress(describe(refusal))
        return REFUSED
    except NotUnderstoodError as fault:
        terminal.progress(f"Not understood: {fault}")
        return NOT_UNDERSTOOD
    except (KeyboardInterrupt, EOFError):
        terminal.progress("Stopped.")
        return REFUSED
    return DONE


def _parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="registry",
        description="The registry of trust services: which CAs and TSAs this RSSP works with. "
        "As many officers must sign it as the trust bundle says.",
        epilog="Exit status: 0 done, 1 refused, 2 not understood.",
        allow_abbrev=False,
    )
    top.add_argument("--json", action="store_true", help="answer in JSON")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    officer = commands.add_parser("new-officer", help="make an officer's key; prints her entry for the trust bundle")
    officer.add_argument("name")
    officer.add_argument("--key-file", required=True, help="a new file for the key (PEM), readable by its owner alone")
    officer.add_argument("--no-passphrase", action="store_true", help="leave the key unencrypted: for tests")
    check = commands.add_parser("check", help="say whether a registry is whole, what stands in it, and who signed it")
    check.add_argument("file")
    check.add_argument("--bundle", help="the trust bundle, to tell whose the signatures are")
    signing = commands.add_parser("sign", help="show what a registry says, and add your signature to FILE.sig")
    signing.add_argument("file")
    signing.add_argument("--key-file", required=True)
    signing.add_argument("--present", metavar="FILE", help="the registry in use now: show what changes")
    signing.add_argument("--yes", action="store_true", help="do not ask to type the version")
    return top


def _new_officer(words: argparse.Namespace, terminal: Terminal) -> None:
    passphrase = b"" if words.no_passphrase else _new_passphrase()
    key = Ed25519PrivateKey.generate()
    encryption = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
    file = SecretFile(words.key_file)
    try:
        file.write(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption).decode().rstrip("\n"))
    finally:
        file.close()
    public = key.public_key()
    raw = base64.b64encode(public.public_bytes_raw()).decode()
    entry = {words.name: [{"key_id": key_id_of(public), "public_key": raw}]}
    terminal.progress('For the trust bundle, under "registry" and "officers":')
    terminal.tell(json.dumps(entry, indent=2), entry)


def _check(words: argparse.Namespace, terminal: Terminal) -> None:
    content, signatures = _read(words.file), _signatures_of(words.file)
    registry = check_registry(content)
    facts = _summary(registry)
    if words.bundle:
        officers = Trust.load(Path(words.bundle)).registry
        names = sorted(signers_of(content, signatures, officers))
        facts["signed by"] = names
        facts["signatures"] = f"{len(names)} of {officers.signatures_min} that are needed"
    terminal.tell(_lines(facts), facts)


def _sign(words: argparse.Namespace, terminal: Terminal) -> None:
    content, signatures = _read(words.file), _signatures_of(words.file)
    registry = check_registry(content)
    if words.present:
        _show_changes(_read(words.present), content, words, terminal)
    else:
        terminal.progress(_lines(_summary(registry)))
    if not words.yes:
        version = str(registry.version)
        terminal.confirm(f"You sign that this RSSP works by version {version} of it. Type the version:", version)
    signed = sign(content, _load_key(words.key_file), signatures)
    file = Path(f"{words.file}.sig")
    file.write_bytes(signed)
    count = len(json.loads(signed))
    facts = {"file": str(file), "signatures": count}
    terminal.tell(f"Signed: {file} holds {count} signature{'s' if count > 1 else ''}.", facts)


def _show_changes(present: bytes, new: bytes, words: argparse.Namespace, terminal: Terminal) -> None:
    lines = list(
        difflib.unified_diff(
            present.decode(errors="replace").splitlines(),
            new.decode(errors="replace").splitlines(),
            words.present,
            words.file,
            lineterm="",
        )
    )
    terminal.progress("\n".join(lines) or "Nothing changes.")


def _summary(registry: Registry) -> dict[str, Any]:
    return {
        "version": registry.version,
        "certification authorities": [
            f"{name} ({ca.protocol}): {', '.join(ca.profiles)}"
            for name, ca in registry.certification_authorities.items()
        ],
        "time-stamping authorities": [
            f"{name} ({', '.join(one.name for one in tsa.classes) or 'no class'}): {tsa.url}"
            for name, tsa in registry.time_stamping_authorities.items()
        ],
        "virtual services": [f"{name}: {service.label}" for name, service in registry.services.items()],
        "extension": "on" if registry.extension else "off",
    }


def _lines(facts: dict[str, Any]) -> str:
    lines: list[str] = []
    for name, value in facts.items():
        lines += (
            [f"{name}:", *(f"  {one}" for one in value or ["none"])]
            if isinstance(value, list)
            else [f"{name}: {value}"]
        )
    return "\n".join("".join(c if c.isprintable() else "?" for c in line) for line in lines)


def _new_passphrase() -> bytes:
    if not sys.stdin.isatty():
        raise NotUnderstoodError("there is no terminal to ask for a passphrase at: use --no-passphrase")
    passphrase = getpass.getpass("A passphrase for the key: ")
    if not passphrase or getpass.getpass("The passphrase again: ") != passphrase:
        raise NotUnderstoodError("the two passphrases differ, or are empty")
    return passphrase.encode()


def _load_key(file: str) -> Ed25519PrivateKey:
    pem = _read(file)
    try:
        key = load_pem_private_key(pem, password=None)
    except TypeError:  # it is encrypted
        try:
            key = load_pem_private_key(pem, password=getpass.getpass("Passphrase of the key: ").encode())
        except ValueError:
            raise NotUnderstoodError("the passphrase is wrong") from None
    except ValueError:
        raise NotUnderstoodError(f"{file} holds no private key") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise NotUnderstoodError(f"{file} holds no Ed25519 key")
    return key


def _read(file: str) -> bytes:
    try:
        return Path(file).read_bytes()
    except OSError as trouble:
        raise NotUnderstoodError(f"{file} cannot be read: {trouble.strerror}") from None


def _signatures_of(file: str) -> bytes:
    signatures = Path(f"{file}.sig")
    return signatures.read_bytes() if signatures.exists() else b"[]"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
