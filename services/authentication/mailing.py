"""Hands a mail to a server by SMTP (RFC 5321), within a time. Knows no notice and no signer."""

import asyncio
import contextlib
import smtplib
import socket
import ssl
from email.message import EmailMessage

from services.authentication.notices import MailRefusedError, MailTroubleError
from services.authentication.settings import Notices
from shared.settings import secret

_PERMANENT = range(500, 600)


class Mailer:
    def __init__(self, settings: Notices, host: str) -> None:
        self._settings = settings
        self._host = host

    async def send(self, message: EmailMessage, *, to: str) -> None:
        """MailRefusedError when the recipient is refused for good, MailTroubleError for everything else."""
        attempt = _Attempt(self._settings, self._host)
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                await asyncio.to_thread(attempt.run, message, to)
        except TimeoutError:
            raise MailTroubleError("not in time") from None
        except smtplib.SMTPRecipientsRefused as refusal:
            [(code, _)] = refusal.recipients.values()
            raise (MailRefusedError() if code in _PERMANENT else MailTroubleError(f"recipient: {code}")) from None
        except smtplib.SMTPResponseException as refusal:
            raise MailTroubleError(f"answered {refusal.smtp_code}") from None
        except (smtplib.SMTPException, OSError) as trouble:
            raise MailTroubleError(type(trouble).__name__) from None
        finally:
            attempt.stop()


class _Attempt:
    """One connection, in a thread of its own: what it waits for ends when the socket is shut."""

    def __init__(self, settings: Notices, host: str) -> None:
        self._settings = settings
        self._host = host
        self._client: smtplib.SMTP | None = None

    def run(self, message: EmailMessage, to: str) -> None:
        settings = self._settings
        implicit = settings.tls == "implicit"
        context = ssl.create_default_context(cafile=str(settings.ca_file) if settings.ca_file else None)
        client = (
            smtplib.SMTP_SSL(timeout=settings.timeout_s, context=context)
            if implicit
            else smtplib.SMTP(timeout=settings.timeout_s)
        )
        # Else its name for TLS comes from the constructor, which connects at once and could not be stopped.
        client._host = self._host  # type: ignore[attr-defined]  # noqa: SLF001 - smtplib has no other place for it
        self._client = client
        try:
            code, _ = client.connect(self._host, settings.port)
            if code != 220:  # noqa: PLR2004 - the greeting of RFC 5321 4.2.3
                raise smtplib.SMTPConnectError(code, "")
            if settings.tls == "starttls":
                # Fails when the server does not offer it: nothing goes on in clear.
                client.starttls(context=context)
            if settings.user and settings.password_file:
                client.login(settings.user, secret(settings.password_file))
            client.send_message(message, from_addr=settings.sender, to_addrs=[to])
            with contextlib.suppress(smtplib.SMTPException, OSError):
                client.quit()  # it was taken; what happens now is no matter
        finally:
            client.close()

    def stop(self) -> None:
        """Wake the thread when it waits still."""
        waiting = self._client.sock if self._client else None
        if waiting is not None:
            with contextlib.suppress(OSError):
                waiting.shutdown(socket.SHUT_RDWR)
