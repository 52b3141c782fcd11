"""Three independent validators of a signed PDF: pyHanko, poppler's pdfsig (NSS), OpenSSL. None of them is ours."""

import asyncio
import subprocess
import tempfile
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from asn1crypto import pem, x509
from pyhanko.pdf_utils.reader import PdfFileReader
from pyhanko.sign.validation import async_validate_pdf_signature
from pyhanko.sign.validation.pdf_embedded import EmbeddedPdfSignature
from pyhanko_certvalidator import ValidationContext


@dataclass(frozen=True)
class Verdict:
    """What a validator says of a document; `words` are its own."""

    validator: str
    accepted: bool
    words: str


def validate(document: bytes, *, anchors_file: Path, tsa_anchors_file: Path) -> tuple[Verdict, ...]:
    """The verdicts of all three."""
    with tempfile.TemporaryDirectory(prefix="rakkan-") as folder:
        work = Path(folder)
        (work / "document.pdf").write_bytes(document)
        return (
            _pyhanko(document, anchors_file, tsa_anchors_file),
            _pdfsig(work),
            _openssl(work, document, anchors_file),
        )


def _pyhanko(document: bytes, anchors_file: Path, tsa_anchors_file: Path) -> Verdict:
    """Trusts the CA for the signer and the TSA's root for the time."""
    context = ValidationContext(trust_roots=_certificates(anchors_file), allow_fetching=False)
    time_context = ValidationContext(trust_roots=_certificates(tsa_anchors_file), allow_fetching=False)
    status = asyncio.run(
        async_validate_pdf_signature(
            _signature(document), signer_validation_context=context, ts_validation_context=time_context
        )
    )
    words = status.summary()
    return Verdict("pyHanko", bool(status.bottom_line), words)


def _pdfsig(work: Path) -> Verdict:
    """Whether the signature is valid; -nocert, because NSS knows nothing of the CA of a demonstration."""
    argv = ["pdfsig", "-nocert", str(work / "document.pdf")]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env=_environment(work))
    said = [line.strip(" -") for line in done.stdout.splitlines() if "Signature Validation" in line]
    words = said[0] if said else (done.stdout + done.stderr).strip()
    return Verdict("pdfsig", words.endswith("Signature is Valid."), words)


def _openssl(work: Path, document: bytes, anchors_file: Path) -> Verdict:
    """The CMS over the signed bytes, with a chain to the CA."""
    signature = _signature(document)
    (work / "signature.der").write_bytes(bytes(signature.pkcs7_content))
    first, first_bytes, second, second_bytes = (int(number) for number in signature.byte_range)
    covered = document[first : first + first_bytes] + document[second : second + second_bytes]
    (work / "signed.bin").write_bytes(covered)
    argv = ["openssl", "cms", "-verify", "-binary", "-inform", "DER", "-in", str(work / "signature.der")]
    argv += ["-content", str(work / "signed.bin"), "-CAfile", str(anchors_file), "-purpose", "any", "-out", "/dev/null"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    lines = (done.stdout + done.stderr).strip().splitlines()
    return Verdict("openssl cms", done.returncode == 0, lines[0] if lines else "")


def _signature(document: bytes) -> EmbeddedPdfSignature:
    signature: EmbeddedPdfSignature = PdfFileReader(BytesIO(document)).embedded_signatures[0]
    return signature


def _certificates(file: Path) -> list[x509.Certificate]:
    return [x509.Certificate.load(der) for _, _, der in pem.unarmor(file.read_bytes(), multiple=True)]


def _environment(home: Path) -> dict[str, str]:
    return {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(home), "LC_ALL": "C.UTF-8"}
