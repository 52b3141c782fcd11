"""django-ca (GPL, a process of its own): a root, an issuing CA, its REST API with orders that are polled.

Its development server and sqlite; signing happens in the request, so an order is issued when it is asked about.
"""

import json
import subprocess
from pathlib import Path
from typing import Any

import httpx
from cryptography import x509

from deploy.local.program import wait_until
from tests.support.peers import POLICY, Lack, example
from tests.support.peers.environments import environment
from tests.support.peers.running import NOBODY_LISTENS, changed, free_port, listening, program, write_secrets

_PASSWORD = "the RA's own password"
_PROJECT = """
SECRET_KEY = "of a test"
ALLOWED_HOSTS = ["127.0.0.1"]
INSTALLED_APPS = ["django.contrib.auth", "django.contrib.contenttypes", "django_ca"]
MIDDLEWARE = []
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]  # the default one takes a second for each request
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}]
ROOT_URLCONF = "urls"
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "django.sqlite3",
                         "OPTIONS": {"transaction_mode": "IMMEDIATE", "timeout": 20}}}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "django-ca": {"BACKEND": "django.core.files.storage.FileSystemStorage", "OPTIONS": {"location": "keys"}},
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
}
CACHES = {"default": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"}}
CA_ENABLE_REST_API = True
CA_DEFAULT_HOSTNAME = "127.0.0.1:%(port)d"
"""
_URLS = """
from django.urls import include, path
urlpatterns = [path("", include("django_ca.urls"))]
"""
_SETUP = """
import json, os, sys
import django
os.environ["DJANGO_SETTINGS_MODULE"] = "project"
django.setup()
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django_ca.models import CertificateAuthority
sys.stdout, out = sys.stderr, sys.stdout
call_command("migrate", verbosity=0)
key = ["--api-enable", "--key-type", "EC", "--elliptic-curve", "secp256r1", "--algorithm", "SHA-256"]
call_command("init_ca", "root", "CN=Django Root", *key, "--path-length", "1")
root = CertificateAuthority.objects.get(name="root")
call_command("init_ca", "issuing", "CN=Django Issuing", *key, "--path-length", "0", "--parent", root.serial,
             "--path", "keys", "--sign-policy-identifier", %(policy)r)
issuing = CertificateAuthority.objects.get(name="issuing")
get_user_model().objects.create_superuser("rakkan", "ra@example.com", %(password)r)
print(json.dumps({"root": root.pub.pem, "issuing": issuing.pub.pem, "serial": issuing.serial}), file=out)
"""
# What its own timer does once a day.
_PUBLISH = """
import os
import django
os.environ["DJANGO_SETTINGS_MODULE"] = "project"
django.setup()
from django_ca.models import CertificateAuthority
issuing = CertificateAuthority.objects.get(name="issuing")
issuing.generate_crls(issuing.key_backend.get_use_private_key_options(issuing, {}), force=True)
"""


class DjangoCA:
    name = "django-ca"
    lacks: frozenset[Lack] = frozenset()

    def start(self, folder: Path) -> None:
        self.folder = folder
        self.python = environment("django-ca") / "python"
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        (folder / "project.py").write_text(_PROJECT % {"port": port})
        (folder / "urls.py").write_text(_URLS)
        made = json.loads(self._run(_SETUP % {"policy": POLICY, "password": _PASSWORD}))
        self.root, self.issuing, self.serial = made["root"], made["issuing"], made["serial"]
        self.secrets = write_secrets(folder / "secrets", ra_password=_PASSWORD, wrong="not the password")
        self.program = program("django-ca", folder)
        serve = ["-m", "django", "runserver", "--noreload", "--settings", "project", "--pythonpath", str(folder)]
        environment_ = {"PATH": "/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1"}
        self.program.start([str(self.python), *serve, f"127.0.0.1:{port}"], environment_, folder=folder)
        wait_until(lambda: listening(self.url), self.program, timeout_s=40)

    def stop(self) -> None:
        self.program.stop()

    def entry(self) -> dict[str, Any]:
        entry = example("django-ca", url=f"{self.url}/api/ca/{self.serial}")
        entry |= {"anchors": [self.root], "intermediates": [self.issuing]}
        entry["profiles"]["refused"] = {"label": "Without a purpose, for which it has no word"}
        entry["revocation"] = {"crl_url": f"{self.url}/crl/{self.serial}/"}
        return entry

    def estranged(self) -> dict[str, Any]:
        return changed(self.entry(), login={"kind": "basic", "username": "rakkan", "secret": "wrong"})

    def away(self) -> dict[str, Any]:
        return changed(self.entry(), url=f"http://{NOBODY_LISTENS}")

    def attend(self) -> None:
        """It has issued already, and says so when it is asked."""

    def is_revoked(self, certificate: x509.Certificate) -> bool:
        """By its CRL."""
        self._run(_PUBLISH)
        crl = x509.load_der_x509_crl(httpx.get(f"{self.url}/crl/{self.serial}/", trust_env=False).content)
        return crl.get_revoked_certificate_by_serial_number(certificate.serial_number) is not None

    def _run(self, code: str) -> str:
        """In django-ca's own environment."""
        command = [str(self.python), "-c", code]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=False, timeout=120)  # noqa: S603 - our own
        if done.returncode:
            raise AssertionError(done.stderr)
        return done.stdout
