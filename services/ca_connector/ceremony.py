"""The key ceremony of the local CA: its key in the HSM token, its self-signed root certificate in a file.

`python -m services.ca_connector.ceremony` with `RAKKAN_HSM__*` and `RAKKAN_CEREMONY__CERTIFICATE_FILE`. Run again, it
keeps what is. The certificate is public; the key never leaves the token.
"""

import os
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import structlog
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from pydantic import Field

from services.ca_connector.profile import root
from services.ca_connector.token import CA_KEY, CA_KEY_ALGORITHM, CAKey
from shared.ceremony import CeremonySettings, hold
from shared.hsm import Token
from shared.settings import Section, SettingsError

log = structlog.get_logger()


class Ceremony(Section):
    certificate_file: Path
    """Where the root certificate goes (PEM). The connector and the SAM read it."""
    common_name: str = Field(default="Rakkan Local CA", min_length=1, max_length=64)
    organization: str = Field(default="Rakkan", min_length=1, max_length=64)
    country: str = Field(default="JP", pattern=r"^[A-Z]{2}$")
    validity_years: int = Field(default=20, ge=1, le=30)


class Settings(CeremonySettings):
    ceremony: Ceremony


async def perform(settings: Settings) -> None:
    """Create what is missing. A certificate that is there must be this key's: nothing is ever overwritten."""
    ceremony = settings.ceremony
    async with Token.open(settings.hsm) as token:
        created = await token.create_signing_key(CA_KEY, CA_KEY_ALGORITHM)
        log.info("CA key created" if created else "CA key kept", label=CA_KEY, serial=token.serial)
        key = await CAKey.find(token)
        if ceremony.certificate_file.exists():
            certificate = x509.load_pem_x509_certificate(ceremony.certificate_file.read_bytes())
            if certificate.public_key() != key.public_key:
                raise SettingsError(f"{ceremony.certificate_file} is the certificate of another key; move it away")
            log.info("root certificate kept", file=str(ceremony.certificate_file))
            return
        name = x509.Name(
            [
                x509.NameAttribute(NameOID.COUNTRY_NAME, ceremony.country),
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, ceremony.organization),
                x509.NameAttribute(NameOID.COMMON_NAME, ceremony.common_name),
            ]
        )
        builder = root(
            name=name,
            key=key.public_key,
            serial_number=x509.random_serial_number(),
            validity=timedelta(days=365 * ceremony.validity_years),
            now=datetime.now(UTC),
        )
        certificate = await key.sign_certificate(builder)
        write_whole(ceremony.certificate_file, certificate.public_bytes(Encoding.PEM))
        log.info("root certificate made", file=str(ceremony.certificate_file), serial=f"{certificate.serial_number:x}")


def write_whole(file: Path, content: bytes) -> None:
    """Write so that a reader sees all of it or nothing, and so that a power cut leaves all of it or nothing."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=file.parent, prefix=f".{file.name}-", delete=False) as draft:
        draft.write(content)
        draft.flush()
        os.fsync(draft.fileno())
    Path(draft.name).chmod(0o644)
    Path(draft.name).replace(file)


if __name__ == "__main__":
    hold("ca_connector", Settings, perform)
