"""The CA officer's tool for key-origin statements: what verifies, and what does not."""

import base64
import json
from pathlib import Path

import pytest

from services.operator.origin import DONE, REFUSED, main
from shared.origin import sign_origin
from tests.rules.test_origin import KEY, ORIGIN, SAM, STRANGER, request
from tests.support.certificates import name


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    key = {"key_id": SAM.key_id, "public_key": base64.b64encode(SAM.key.public_key().public_bytes_raw()).decode()}
    file = tmp_path / "trust.json"
    file.write_text(json.dumps({"epoch": 1, "rooms": {"sam": {"activations": [key]}}}))
    return file


def files(folder: Path, statement: bytes, csr: bytes) -> list[str]:
    (folder / "statement").write_bytes(statement)
    (folder / "request").write_bytes(csr)
    return [str(folder / "statement"), "--bundle", str(folder / "trust.json"), "--request", str(folder / "request")]


@pytest.mark.parametrize("encode", [bytes, base64.b64encode], ids=["raw", "base64"])
def test_a_statement_of_the_sam_verifies_and_is_shown(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], encode: type[bytes]
) -> None:
    assert bundle.exists()
    arguments = files(tmp_path, encode(sign_origin(ORIGIN, SAM)), encode(request(KEY, name("花子"))))
    assert main(["--json", *arguments]) == DONE
    shown = json.loads(capsys.readouterr().out)
    assert (shown["order_id"], shown["made_in"], shown["authority"]) == ("order-1", "hsm", "blue")


@pytest.mark.parametrize("wrong", ["signed by somebody else", "of another subject", "nothing"])
def test_what_does_not_verify_is_refused(bundle: Path, tmp_path: Path, wrong: str) -> None:
    assert bundle.exists()
    statement = sign_origin(ORIGIN, STRANGER if wrong == "signed by somebody else" else SAM)
    subject = name("Somebody") if wrong == "of another subject" else name("花子")
    arguments = files(tmp_path, b"" if wrong == "nothing" else statement, request(KEY, subject))
    assert main(arguments) == REFUSED
