"""The CA officer's tool: verify a key-origin statement, offline, against a request. Needs no suite that runs.

`python -m services.operator.origin STATEMENT --bundle trust.json [--request REQUEST]`; the files as they
came, in DER or base64. Who works at a CA has neither the suite nor its settings: the public keys of the trust bundle
are enough.
"""

import argparse
import base64
import binascii
import sys
from pathlib import Path

from services.operator.terminal import Terminal
from services.operator.words import describe
from shared.errors import RakkanError
from shared.origin import check_origin_of, verify_origin
from shared.trust import Purpose, Trust

DONE, REFUSED = 0, 1


def main(arguments: list[str]) -> int:
    words = _parser().parse_args(arguments)
    terminal = Terminal(as_json=words.json)
    try:
        keys = Trust.load(Path(words.bundle)).verifying_keys("sam", Purpose.ACTIVATIONS)
        origin = verify_origin(_read(words.statement), keys)
        if words.request is not None:
            check_origin_of(origin, _read(words.request))
    except RakkanError as refusal:
        terminal.progress(describe(refusal))
        return REFUSED
    except (OSError, ValueError) as fault:
        terminal.progress(f"Failed: {fault}")
        return REFUSED
    facts = origin.model_dump(mode="json") | {"public_key_hash": origin.public_key_hash.hex()}
    terminal.tell(f"The SAM states that the key of order {origin.order_id} was made in the HSM.", facts)
    return DONE


def _read(file: str) -> bytes:
    """As it is, or decoded when it is base64 (PEM too)."""
    content = Path(file).read_bytes()
    text = b"".join(line for line in content.splitlines() if not line.startswith(b"-----"))
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return content


def _parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="origin", description="Verify a key-origin statement.", allow_abbrev=False)
    top.add_argument("statement", help="the file of the statement, raw or in base64")
    top.add_argument("--bundle", required=True, help="the trust bundle, for the SAM's public keys")
    top.add_argument("--request", help="the certification request it is to be of")
    top.add_argument("--json", action="store_true", help="answer in JSON")
    return top


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
