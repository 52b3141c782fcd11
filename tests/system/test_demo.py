"""The demo on a stack of its own: a real PDF, signed by pyHanko's CSC client, judged by three validators."""

import asyncio
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from deploy.local import demo
from deploy.local.document import forge, write_document
from deploy.local.enrollment import CREDENTIAL, Enrollment
from deploy.local.partner import sign_pdf
from deploy.local.progress import Progress
from deploy.local.stack import Stack
from deploy.local.validators import validate


async def test_three_validators_accept_the_page_and_refuse_it_with_one_byte_changed(
    suite: Stack, tmp_path: Path
) -> None:
    file = tmp_path / "signed.pdf"
    await asyncio.to_thread(demo.run, suite, Progress(), file=file)
    anchors = {"anchors_file": suite.rooms.anchors_file, "tsa_anchors_file": suite.rooms.tsa_anchors_file}
    verdicts = await asyncio.to_thread(validate, file.read_bytes(), **anchors)
    forged = await asyncio.to_thread(validate, forge(file.read_bytes()), **anchors)
    assert [(verdict.validator, verdict.accepted) for verdict in verdicts] == [
        ("pyHanko", True),
        ("pdfsig", True),
        ("openssl cms", True),
    ]
    assert [verdict.accepted for verdict in forged] == [False, False, False]
    assert "TIMESTAMP_TOKEN<INTACT:TRUSTED>" in verdicts[0].words
    assert _left_by_the_second_act(tmp_path) == [
        "demo-approval-en.png",
        "demo-approval-ja.png",
        "demo-approved.pdf",
    ]


def _left_by_the_second_act(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.glob("demo-appro*"))


def test_without_a_browser_the_second_act_is_left_out_with_the_line_to_type(
    stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    demo._second_act(stack, Progress(), folder=tmp_path, may_use_sudo=False)
    assert "apt-get install --no-install-recommends chromium fonts-ipafont-gothic" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


async def test_a_second_demo_finds_the_first_ones_credential(
    suite: Stack, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        await asyncio.to_thread(demo.run, suite, Progress(), file=tmp_path / "signed.pdf")
    told = capsys.readouterr().err
    assert "from an earlier run" in told
    killed = re.findall(r"the authority `(\w+)` is killed", told)
    stamped = re.findall(r"it came from `(\w+)`, and `openssl ts -verify` accepts it", told)
    assert stamped[::2] == killed
    assert stamped[1::2] == [{"local": "second", "second": "local"}[name] for name in killed]
    assert [f"refused: 503 The time-stamping authority {name} is temporarily" in told for name in killed] == [True] * 2


@pytest.mark.parametrize("version", ["v1", "v2"])
async def test_an_unmodified_pyhanko_signs_through_both_versions(suite: Stack, version: str, tmp_path: Path) -> None:
    await asyncio.to_thread(demo.run, suite, Progress(), file=tmp_path / "signed.pdf")
    enrollment = Enrollment(suite)
    signed = await sign_pdf(
        write_document(now=datetime.now(UTC)),
        gateway_url=suite.rooms.gateway_url,
        token=enrollment.token(),
        credential_id=CREDENTIAL,
        pin=enrollment.pin,
        version=version,
    )
    verdicts = await asyncio.to_thread(
        validate, signed, anchors_file=suite.rooms.anchors_file, tsa_anchors_file=suite.rooms.tsa_anchors_file
    )
    assert [verdict.words for verdict in verdicts if not verdict.accepted] == []
