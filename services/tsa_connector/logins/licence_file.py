"""A TSA that wants its licence file with every request: the whole file, in base64, in a header of its choosing."""

import base64

from services.tsa_connector.logins import Login, Secrets
from shared.registry.model import TSALogin
from shared.settings import SettingsError

_BYTES_MAX = 8192


def open(login: TSALogin, secrets: Secrets) -> Login:  # noqa: A001 - the name that every hook has
    """`secret` names the file, `header` the header."""
    if login.secret is None or login.header is None:
        raise SettingsError("the login hook licence_file needs secret and header")
    content = secrets.secret_file(login.secret).read_bytes()
    if not 0 < len(content) <= _BYTES_MAX:
        raise SettingsError(f"the licence file {login.secret} is empty or has more than {_BYTES_MAX} bytes")
    headers = {login.header: base64.b64encode(content).decode()}
    return Login(headers=lambda _: headers)
