"""What stands in the registry of trust services, and which entries contradict each other. Knows no file and no room.

Every room reads the same registry and takes from it what is its own: the CA connector the connections, the SAM the
anchors and profiles it checks certificates by, the TSA connector its authorities, the gateway what partners are told.
Secrets never stand in it: a connection names a secret, and the room that needs it has a file of that name.
"""

import re
from collections.abc import Mapping
from datetime import date, timedelta
from functools import cached_property
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Annotated, Any, Literal, Self

from cryptography import x509
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator

from shared.algorithms import Hash, KeyAlgorithm

_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_DNS_NAME = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(\.{_LABEL})+")
_CREDENTIAL_ID = "{credential_id}"


def _one_dns_name(text: str) -> str:
    if not _DNS_NAME.fullmatch(text):
        raise ValueError(f"{text[:80]!r} is no DNS name")
    return text


def _names_each_credential(template: str) -> str:
    if template.count(_CREDENTIAL_ID) != 1:
        raise ValueError(f"a DNS name with {_CREDENTIAL_ID} in it once is wanted, and with no other placeholder")
    _one_dns_name(template.replace(_CREDENTIAL_ID, "c").lower())
    return template


def _one_certificate(pem: str) -> str:
    if len(x509.load_pem_x509_certificates(pem.encode())) != 1:
        raise ValueError("a PEM of exactly one certificate is wanted")
    return pem


Id = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
Label = Annotated[str, StringConstraints(min_length=1, max_length=255)]
ObjectIdentifier = Annotated[str, StringConstraints(pattern=r"^[0-2](\.(0|[1-9][0-9]*))+$", max_length=128)]
Country = Annotated[str, StringConstraints(pattern=r"^[A-Z]{2}$")]
URL = Annotated[str, StringConstraints(pattern=r"^https?://[^\s#]+$", max_length=500)]
SecretName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
"""The name of a file in the room's folder of registry secrets; never a path."""
PEM = Annotated[str, StringConstraints(max_length=20_000), AfterValidator(_one_certificate)]
SubjectAttribute = Literal["country", "organization", "organization_identifier", "common_name", "serial_number"]
"""What a subject can be made of: what the SAM knows of a signer as verified, and nothing that a partner says."""
KeyUsage = Literal["digital_signature", "content_commitment"]
DOCUMENT_SIGNING = "1.3.6.1.5.5.7.3.36"
"""id-kp-documentSigning (RFC 9336)."""


class Entry(BaseModel):
    """Unknown members are refused: a misspelt limit would be no limit."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Accreditation(Entry):
    """What somebody vouches for, and for how long: `jp-accredited`, `eu-qualified`, `standard` or one's own name."""

    name: Id
    since: date
    until: date | None = None
    """The last day."""

    def holds_on(self, day: date) -> bool:
        return self.since <= day and (self.until is None or day <= self.until)


class Quota(Entry):
    """At most so many in any stretch of so many seconds, all replicas together."""

    requests: int = Field(ge=1)
    seconds: int = Field(ge=1, le=31_622_400)


class CertificateProfile(Entry):
    """What is ordered at a CA, and what the certificate that comes back must be. The SAM checks every line of it."""

    label: Label
    policies: tuple[ObjectIdentifier, ...] = ()
    """At least one of these must stand in certificatePolicies; empty: none is asked for."""
    signature_qualifier: Label | None = None
    """The CSC `signatureQualifier` that leads here, such as `eu_eidas_qes`."""
    subject_type: Literal["natural", "legal", "seal"] = "natural"
    subject: tuple[SubjectAttribute, ...] = ("country", "organization", "common_name", "serial_number")
    """The subject's attributes in order; those the signer has not are left out."""
    dns_name: Annotated[str, StringConstraints(max_length=255), AfterValidator(_names_each_credential)] | None = None
    """For private ACME CAs only, which certify nobody who is no machine: such as `{credential_id}.signers.example`.

    The SAM puts it beside the subject into its request (subjectAltName), and demands it in the certificate."""
    key_algorithms: tuple[KeyAlgorithm, ...] = (KeyAlgorithm.P256,)
    validity_days_max: int = Field(default=1826, ge=1, le=3660)
    key_usages: tuple[KeyUsage, ...] = ("content_commitment",)
    """Bits of which at least one must be set (RFC 5280 4.2.1.3)."""
    extended_key_usages: tuple[ObjectIdentifier, ...] = ()
    """Each of these must stand in extKeyUsage."""
    short_term: bool = False
    """Made for one authorization and never renewed."""
    issuance: Literal["immediate", "pending", "external"] = "immediate"
    """How long it takes: at once, some time at the CA, or by hand with files."""
    ca_profile: str | None = Field(default=None, max_length=255)
    """What the CA itself calls this profile (a role, a product, an end entity profile); only its adapter reads it."""
    renew_days_before: int | None = Field(default=None, ge=1, le=400)
    """Renew by itself so long before the end; nothing: only when told."""
    rekey_on_renewal: bool = True
    """With a new key, as ETSI EN 319 411-1 wants it by default."""

    def dns_name_of(self, credential_id: str) -> str | None:
        """The template's name for this credential, in lower case. ValueError when its id cannot be in a DNS name."""
        if self.dns_name is None:
            return None
        return _one_dns_name(self.dns_name.replace(_CREDENTIAL_ID, credential_id).lower())


class StatusSource(Entry):
    """Where the status of a CA's certificates is read, beside what its certificates say themselves."""

    crl_url: URL | None = None
    ocsp_url: URL | None = None
    ocsp_responder: PEM | None = None
    """A responder that the CA did not name by delegation; without it only the CA or its delegate may sign."""
    max_age_s: int = Field(default=86_400, ge=60)
    """A status older than this is no status."""

    @cached_property
    def responder_certificate(self) -> x509.Certificate | None:
        return None if self.ocsp_responder is None else x509.load_pem_x509_certificate(self.ocsp_responder.encode())


class Polling(Entry):
    """When a pending order is asked about again; what the CA says itself comes first."""

    first_s: int = Field(default=5, ge=1)
    longest_s: int = Field(default=3600, ge=1)
    give_up_days: int = Field(default=30, ge=1, le=400)


class CertificationAuthority(Entry):
    """One CA: how to speak with it, what to believe it by, what may be ordered there and by whom."""

    label: Label
    country: Country = "JP"
    status: Literal["available", "maintenance"] = "available"
    """`maintenance` takes no new orders; what is under way goes on."""
    protocol: Id
    """The adapter: a file in `services/ca_connector/authorities`."""
    connection: Mapping[str, Any] = {}
    """Of the adapter's own `Connection`; only the CA connector reads it."""
    anchors: tuple[PEM, ...] = ()
    """What its certificates must chain to, this CA's and nothing else's. May be empty for `local` alone."""
    intermediates: tuple[PEM, ...] = ()
    """For a CA that does not send its chain."""
    profiles: Mapping[Id, CertificateProfile] = Field(min_length=1)
    default_profile: Id
    tenants: tuple[str, ...] | None = None
    """Who may order here; nothing: every tenant."""
    accreditations: tuple[Accreditation, ...] = ()
    timeout_s: float = Field(default=15.0, gt=0, le=120)
    """For one exchange with the CA."""
    concurrency_max: int = Field(default=4, ge=1, le=64)
    """Exchanges at once, in one process."""
    quotas: tuple[Quota, ...] = ()
    """Of orders."""
    polling: Polling = Polling()
    revocation: StatusSource = StatusSource()

    @model_validator(mode="after")
    def _default_is_a_profile(self) -> Self:
        if self.default_profile not in self.profiles:
            raise ValueError(f"default_profile {self.default_profile} is none of the profiles")
        return self

    @cached_property
    def anchor_certificates(self) -> tuple[x509.Certificate, ...]:
        return tuple(x509.load_pem_x509_certificate(pem.encode()) for pem in self.anchors)

    @cached_property
    def intermediate_certificates(self) -> tuple[x509.Certificate, ...]:
        return tuple(x509.load_pem_x509_certificate(pem.encode()) for pem in self.intermediates)

    def serves(self, tenant_id: str) -> bool:
        return self.tenants is None or tenant_id in self.tenants


class TSALogin(Entry):
    """How a TSA knows us. `hook` names a scheme of one's own in `services/tsa_connector/logins`."""

    kind: Literal["none", "basic", "bearer", "header", "mtls", "hook"] = "none"
    username: Label | None = None
    secret: SecretName | None = None
    """The password, the token, the header's value, or the PEM file of certificate and key (mtls)."""
    header: Label | None = None
    hook: Id | None = None

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        needs = {
            "none": (),
            "basic": ("username", "secret"),
            "bearer": ("secret",),
            "header": ("header", "secret"),
            "mtls": ("secret",),
            "hook": ("hook",),
        }[self.kind]
        missing = [name for name in needs if getattr(self, name) is None]
        if missing:
            raise ValueError(f"a login of the kind {self.kind} needs {', '.join(missing)}")
        return self


class TimeStampingAuthority(Entry):
    """One TSA: where it is, how it knows us, and how far its tokens are believed."""

    label: Label
    status: Literal["available", "maintenance"] = "available"
    url: URL
    login: TSALogin = TSALogin()
    tls_anchors: tuple[PEM, ...] = ()
    """What its web server is believed by; empty: what the system believes."""
    anchors: tuple[PEM, ...] = Field(min_length=1)
    """What its tokens must chain to, this TSA's and nothing else's."""
    crls: tuple[URL, ...] = ()
    """Where the status of its certificate is read, beside what the certificate says itself."""
    check_revocation: bool = True
    classes: tuple[Accreditation, ...] = ()
    """The assurance classes it stands in, each with its time."""
    policies: tuple[ObjectIdentifier, ...] = ()
    """What a token may name; empty: anything."""
    default_policy: ObjectIdentifier | None = None
    """What is asked for when the caller asks for none."""
    ignores_policy: bool = False
    """It stamps under its own policy whatever is asked: never chosen for a policy it does not list."""
    hashes: tuple[Hash, ...] = (Hash.SHA256, Hash.SHA384, Hash.SHA512)
    accuracy_max_ms: int | None = Field(default=None, ge=1)
    """Refuse tokens that state no accuracy or a worse one (EN 319 422: 1 s)."""
    clock_tolerance_s: float = Field(default=30.0, gt=0, le=3600)
    """How far genTime may lie from our clock."""
    allow_ess_v1: bool = False
    """Accept the SHA-1 certificate identifier of RFC 3161 beside that of RFC 5816."""
    qualified_statement: bool = False
    """Demand esi4-qtstStatement (EN 319 422 9.1)."""
    tenants: tuple[str, ...] | None = None
    quotas: tuple[Quota, ...] = ()
    cost: int = Field(default=0, ge=0)
    """Of one token, in whatever unit all entries share: the cheapest healthy one is asked first."""
    weight: int = Field(default=1, ge=1, le=1000)
    """Share of the load among those of the same cost."""
    hedge_percent_max: int = Field(default=0, ge=0, le=20)
    """Of so many requests in a hundred it may be asked as the second, when the first is later than 19 in 20 of its
    answers. Such a token may come for nothing, and be paid for: 0, the default, is never."""
    timeout_s: float = Field(default=5.0, gt=0, le=60)
    connect_timeout_s: float = Field(default=2.0, gt=0, le=30)
    answer_bytes_max: int = Field(default=65_536, ge=1024, le=1_048_576)
    connections_max: int = Field(default=16, ge=1, le=256)

    @cached_property
    def anchor_certificates(self) -> tuple[x509.Certificate, ...]:
        return tuple(x509.load_pem_x509_certificate(pem.encode()) for pem in self.anchors)

    @cached_property
    def accuracy_max(self) -> timedelta | None:
        return None if self.accuracy_max_ms is None else timedelta(milliseconds=self.accuracy_max_ms)

    def in_class(self, name: str, day: date) -> bool:
        return any(one.name == name and one.holds_on(day) for one in self.classes)

    def serves(self, tenant_id: str) -> bool:
        return self.tenants is None or tenant_id in self.tenants


class TimestampChoice(Entry):
    """A TSA by its name, or any of a class. A name never fails over."""

    authority: Id | None = None
    assurance_class: Id | None = None
    archive_authority: Id | None = None
    """For archive time stamps (LTA) when they come from elsewhere."""

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if (self.authority is None) == (self.assurance_class is None):
            raise ValueError("name either an authority or an assurance_class")
        return self


class VirtualService(Entry):
    """What a client chooses by its base URL alone: `/s/<service>/csc/v1` and `/s/<service>/csc/v2`."""

    label: Label
    description: str = Field(default="", max_length=255)
    tenants: tuple[str, ...] | None = None
    certification_authority: Id | None = None
    """Of new credentials; and only credentials of this CA and of `visible_authorities` are seen."""
    certificate_profile: Id | None = None
    visible_authorities: tuple[Id, ...] = ()
    timestamps: TimestampChoice | None = None
    timestamp_networks: tuple[str, ...] = ()
    """Networks (CIDR) whose clients may use `/s/<service>/tsa` (RFC 3161 over HTTP); empty: nobody.

    They bring no token, so the service must name the one tenant in `tenants` that answers for them.
    """

    @model_validator(mode="after")
    def _somebody_answers_for_networks(self) -> Self:
        _ = self.networks  # a ValueError when one is none
        if self.timestamp_networks and len(self.tenants or ()) != 1:
            raise ValueError("timestamp_networks need exactly one tenant in tenants")
        return self

    @cached_property
    def networks(self) -> tuple[IPv4Network | IPv6Network, ...]:
        return tuple(ip_network(text) for text in self.timestamp_networks)

    @property
    def stamps_for(self) -> str:
        """The tenant whose quota and audit trail a query without a token falls under."""
        if self.tenants is None or len(self.tenants) != 1:
            raise LookupError("nobody answers for queries without a token")
        return self.tenants[0]

    def serves(self, tenant_id: str) -> bool:
        return self.tenants is None or tenant_id in self.tenants


class Defaults(Entry):
    certification_authority: Id | None = None
    timestamps: TimestampChoice | None = None
    clients: Mapping[str, Id] = {}
    """Client id to virtual service, for a client that cannot change its base URL."""


class Registry(Entry):
    """Everything. `version` only ever rises: a room never goes back to an older one."""

    version: int = Field(ge=1)
    extension: bool = True
    """Whether partners are told of the extension and may use it. Virtual services work without."""
    certification_authorities: Mapping[Id, CertificationAuthority] = {}
    time_stamping_authorities: Mapping[Id, TimeStampingAuthority] = {}
    services: Mapping[Id, VirtualService] = {}
    defaults: Defaults = Defaults()

    @model_validator(mode="after")
    def _names_stand_for_something(self) -> Self:
        for name, service in self.services.items():
            self._check_authority(service.certification_authority, service.certificate_profile, of=f"service {name}")
            for seen in service.visible_authorities:
                self._check_authority(seen, None, of=f"service {name}")
            self._check_timestamps(service.timestamps, of=f"service {name}")
        self._check_authority(self.defaults.certification_authority, None, of="defaults")
        self._check_timestamps(self.defaults.timestamps, of="defaults")
        for client, service_name in self.defaults.clients.items():
            if service_name not in self.services:
                raise ValueError(f"client {client} is given the service {service_name}, which is not there")
        return self

    def _check_authority(self, name: str | None, profile: str | None, *, of: str) -> None:
        if name is None:
            if profile is not None:
                raise ValueError(f"{of} names a certificate_profile without its certification_authority")
            return
        if name not in self.certification_authorities:
            raise ValueError(f"{of} names the certification authority {name}, which is not there")
        if profile is not None and profile not in self.certification_authorities[name].profiles:
            raise ValueError(f"{of} names the profile {profile}, which {name} has not")

    def _check_timestamps(self, choice: TimestampChoice | None, *, of: str) -> None:
        if choice is None:
            return
        for name in (choice.authority, choice.archive_authority):
            if name is not None and name not in self.time_stamping_authorities:
                raise ValueError(f"{of} names the time-stamping authority {name}, which is not there")
        classes = {one.name for tsa in self.time_stamping_authorities.values() for one in tsa.classes}
        if choice.assurance_class is not None and choice.assurance_class not in classes:
            raise ValueError(f"{of} names the class {choice.assurance_class}, in which no authority stands")
