"""Web services of commercial CAs, as far as an order meets them, after their published descriptions.

They are ours, so they prove only that our entries and our adapter keep to those descriptions as we read them.
"""

import base64
import itertools
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from tests.support.acting_http import Asked, Raw, reply, reply_json
from tests.support.certificates import CA, authority
from tests.support.ordering import now
from tests.support.peers import POLICY

REFUSED_NAME = "Nobody At All"


def pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(Encoding.PEM).decode()


def base64_der(certificate: x509.Certificate) -> str:
    return base64.b64encode(certificate.public_bytes(Encoding.DER)).decode()


@dataclass
class Simulated:
    """Two levels of CA, orders that are approved at the second question, and what was revoked for which reason."""

    root: CA = field(default_factory=lambda: authority("Simulated Root", now=now()))
    waits: int = 1
    revoked: dict[int, str] = field(default_factory=dict)
    requests: dict[str, x509.CertificateSigningRequest] = field(default_factory=dict)
    asked: dict[str, int] = field(default_factory=dict)
    issued: dict[str, x509.Certificate] = field(default_factory=dict)
    numbers: Any = field(default_factory=lambda: itertools.count(4711))

    def __post_init__(self) -> None:
        self.issuing = authority("Simulated Issuing CA", self.root, now=now())

    def take(self, csr: str, number: str | None = None) -> str | None:
        """The number of a new order; nothing for a name that is refused."""
        request = x509.load_pem_x509_csr(csr.encode())
        if not request.is_signature_valid or REFUSED_NAME in request.subject.rfc4514_string():
            return None
        number = number or str(next(self.numbers))
        self.requests[number] = request
        return number

    def ready(self, number: str) -> x509.Certificate | None:
        """Its certificate, once it was asked about often enough."""
        self.asked[number] = self.asked.get(number, 0) + 1
        if self.asked[number] <= self.waits:
            return None
        if number not in self.issued:
            self.issued[number] = self._issue(self.requests[number])
        return self.issued[number]

    def _issue(self, request: x509.CertificateSigningRequest) -> x509.Certificate:
        usage = dict.fromkeys(
            ("digital_signature", "key_encipherment", "data_encipherment", "key_agreement", "key_cert_sign",
             "crl_sign", "encipher_only", "decipher_only"), False,
        )  # fmt: skip
        policy = x509.PolicyInformation(x509.ObjectIdentifier(POLICY), None)
        return (
            x509.CertificateBuilder()
            .subject_name(request.subject)
            .issuer_name(self.issuing.certificate.subject)
            .public_key(request.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now() - timedelta(minutes=5))
            .not_valid_after(now() + timedelta(days=300))
            .add_extension(x509.KeyUsage(content_commitment=True, **usage), critical=True)
            .add_extension(x509.CertificatePolicies([policy]), critical=False)
            .sign(self.issuing.key, hashes.SHA256())
        )

    def revoke(self, certificate: x509.Certificate, reason: str) -> bool:
        """False when it was revoked before."""
        if certificate.serial_number in self.revoked:
            return False
        self.revoked[certificate.serial_number] = reason
        return True


class HVCA(Simulated):
    """GlobalSign Atlas: a token for key and secret, the serial number in a Location, PATCH to revoke."""

    tokens: int = 0

    def answer(self, asked: Asked) -> Raw:  # noqa: PLR0911 - a table of its routes
        path = asked.path.removeprefix("/v2")
        if path == "/login":
            if asked.json != {"api_key": "the key", "api_secret": "the secret"}:
                return reply_json(401, {"description": "wrong"})
            self.tokens += 1
            return reply_json(200, {"access_token": f"token-{self.tokens}"})
        if asked.headers.get("authorization") != f"Bearer token-{self.tokens}":
            return reply_json(401, {"description": "unauthorized"})
        if path == "/certificates":
            return self._order(asked)
        if path == "/trustchain":
            return reply_json(200, [pem(self.issuing.certificate), pem(self.root.certificate)])
        if path == "/validationpolicy":
            return reply_json(200, {"validity": {"secondsmin": 3600}})
        return self._certificate(asked, path.rpartition("/")[2])

    def _order(self, asked: Asked) -> Raw:
        wish = asked.json
        assert wish["validity"]["not_before"] < wish["validity"]["not_after"]
        assert wish["subject_dn"].keys() == {"common_name", "organization", "country", "serial_number"}
        number = self.take(wish["public_key"], f"{x509.random_serial_number():X}")
        if number is None:
            return reply_json(422, {"description": "subject_dn: not allowed by the validation policy"})
        return reply(201, b"", f"Location: https://hvca.example/v2/certificates/{number}")

    def _certificate(self, asked: Asked, number: str) -> Raw:
        if asked.method == "GET":
            certificate = self.ready(number)
            if certificate is None:
                return reply_json(404, {"description": "not yet available"})
            return reply_json(200, {"certificate": pem(certificate), "status": "ISSUED", "updated_at": 1})
        assert asked.method == "PATCH"
        assert isinstance(asked.json["revocation_time"], int)
        if not self.revoke(self.issued[number], asked.json["revocation_reason"]):
            return reply_json(422, {"description": "certificate is already revoked"})
        return reply(204)


class CertCentral(Simulated):
    """DigiCert: an order, its state, a download, and a revocation by the certificate's own number."""

    def answer(self, asked: Asked) -> Raw:  # noqa: PLR0911 - a table of its routes
        if asked.headers.get("x-dc-devkey") != "the key":
            return reply_json(403, {"errors": [{"code": "access_denied", "message": "no"}]})
        path = asked.path.removeprefix("/services/v2")
        if path == "/user/me":
            return reply_json(200, {"id": 1})
        if asked.method == "POST":
            assert path == "/order/certificate/document_signing_org_1"
            assert asked.json["order_validity"] == {"days": 365}
            number = self.take(asked.json["certificate"]["csr"])
            if number is None:
                return reply_json(400, {"errors": [{"code": "invalid_name", "message": "The name is not validated."}]})
            return reply_json(201, {"id": int(number), "requests": [{"id": 1, "status": "pending"}]})
        if path.startswith("/order/certificate/"):
            return self._state(path.rpartition("/")[2])
        number = str(int(path.split("/")[2]) - 1_000_000)
        if path.endswith("/pem_all"):
            bundle = pem(self.issued[number]) + pem(self.issuing.certificate) + pem(self.root.certificate)
            return reply(200, bundle, content_type="application/x-pem-file")
        assert (asked.method, path.rpartition("/")[2]) == ("PUT", "revoke")
        if not self.revoke(self.issued[number], asked.json["revocation_reason"]):
            return reply_json(400, {"errors": [{"code": "x", "message": "Certificate was already revoked."}]})
        return reply(204)

    def _state(self, number: str) -> Raw:
        if self.ready(number) is None:
            return reply_json(200, {"id": int(number), "status": "processing", "certificate": {}})
        certificate = {"id": int(number) + 1_000_000}
        return reply_json(200, {"id": int(number), "status": "issued", "certificate": certificate})


class SCM(Simulated):
    """Sectigo Certificate Manager: three headers of credentials, an sslId, a collection."""

    def answer(self, asked: Asked) -> Raw:  # noqa: PLR0911 - a table of its routes
        if [asked.headers.get(name) for name in ("login", "password", "customeruri")] != ["ra", "secret", "example"]:
            return reply_json(401, {"code": -16, "description": "Unknown user"})
        path = asked.path.removeprefix("/api/ssl/v1")
        if path == "/enroll":
            assert asked.json["term"] == 365
            number = self.take(asked.json["csr"])
            if number is None:
                return reply_json(400, {"code": -14, "description": "The CSR is not allowed for this organization."})
            return reply_json(200, {"renewId": "x", "sslId": int(number)})
        number = urlsplit(path).path.rpartition("/")[2]
        if path.startswith("/collect/"):
            assert parse_qs(urlsplit(path).query) == {"format": ["pem"]}
            bundle = pem(self.root.certificate) + pem(self.issuing.certificate) + pem(self.issued[number])
            return reply(200, bundle, content_type="application/octet-stream")
        if path.startswith("/revoke/"):
            if not self.revoke(self.issued[number], str(asked.json["reasonCode"])):
                return reply_json(400, {"code": -102, "description": "The certificate is already revoked."})
            return reply(204)
        state = "Issued" if self.ready(number) is not None else "Applied"
        return reply_json(200, {"sslId": int(number), "status": state})


class SimulatedEJBCA(Simulated):
    """EJBCA: approval, then finalizing; CAs named by their DN in the path; a revocation said twice is a conflict."""

    denies: bool = False

    def answer(self, asked: Asked) -> Raw:
        path = urlsplit(asked.path.removeprefix("/ejbca/ejbca-rest-api"))
        steps = [unquote(step) for step in path.path.split("/")[1:]]
        issuer = self.issuing.certificate.subject.rfc4514_string()
        if steps == ["v1", "ca"]:
            known = [{"id": 7, "name": "Signing CA G1", "subject_dn": issuer, "issuer_dn": "CN=Simulated Root"}]
            return reply_json(200, {"certificate_authorities": known})
        if steps == ["v1", "ca", issuer, "certificate", "download"]:
            chain = pem(self.issuing.certificate) + pem(self.root.certificate)
            return reply(200, chain, content_type="application/octet-stream")
        if steps[:2] != ["v1", "certificate"]:
            return reply_json(404, {"error_code": 404, "error_message": "no such resource"})
        if steps[2] == "pkcs10enroll":
            return self._enroll(asked.json)
        if steps[3] == "finalize":
            return self._finalize(steps[2], asked.json)
        assert steps[2] == issuer
        return self._status(int(steps[3], 16), steps[4], parse_qs(path.query))

    def _enroll(self, wish: dict[str, Any]) -> Raw:
        assert wish["certificate_profile_name"] == "DOCUMENT-SIGNING"
        assert wish["end_entity_profile_name"] == "SIGNERS"
        assert wish["certificate_authority_name"] == "Signing CA G1"
        assert wish["username"].startswith("rakkan-")
        assert wish["password"] == "the code"
        number = self.take(wish["certificate_request"])
        if number is None:
            return reply_json(422, {"error_code": 422, "error_message": "Wrong common name for the profile SIGNERS."})
        if not self.waits:
            return self._issued_as(201, number, with_chain=wish["include_chain"])
        waiting = f"The request has been sent for approval, request ID: {number}."
        return reply_json(202, {"error_code": 202, "error_message": waiting})

    def _finalize(self, number: str, wish: dict[str, Any]) -> Raw:
        assert wish == {"response_format": "DER", "password": "the code"}
        if number not in self.requests:
            return reply_json(404, {"error_code": 404, "error_message": "No such request."})
        if self.denies:
            return reply_json(
                400, {"error_code": 400, "error_message": f"Request ID {number} was rejected: not known."}
            )
        if number in self.issued:
            return reply_json(400, {"error_code": 400, "error_message": "The end entity is generated already."})
        if self.asked.get(number, 0) < self.waits:
            self.asked[number] = self.asked.get(number, 0) + 1
            return reply_json(202, {"error_code": 202, "error_message": "Still waiting for approval."})
        return self._issued_as(200, number, with_chain=False)

    def _issued_as(self, status: int, number: str, *, with_chain: bool) -> Raw:
        certificate = self.ready(number)
        assert certificate is not None
        answer: dict[str, Any] = {
            "certificate": base64_der(certificate),
            "serial_number": f"{certificate.serial_number:X}",
            "response_format": "DER",
        }
        if with_chain:
            answer["certificate_chain"] = [base64_der(one.certificate) for one in (self.issuing, self.root)]
        return reply_json(status, answer)

    def _status(self, serial_number: int, what: str, query: dict[str, list[str]]) -> Raw:
        certificate = next(one for one in self.issued.values() if one.serial_number == serial_number)
        if what == "revoke" and not self.revoke(certificate, query["reason"][0]):
            return reply_json(409, {"error_code": 409, "error_message": "The certificate is already revoked."})
        return reply_json(200, {"serial_number": f"{serial_number:X}", "revoked": serial_number in self.revoked})
