"""What happens on each method by which credentials come and go: a CA is chosen, the SAM asked, issuance waited for."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

import structlog

from services.gateway.csc import model
from services.gateway.csc.issuing import Created
from services.gateway.csc.model import SAD
from services.gateway.handlers import Action, Bus, Caller, Handlers
from shared.contracts import issuance
from shared.contracts.issuance import IssuanceChecked, RequestRead
from shared.errors import Code, RakkanError
from shared.registry.choosing import CertificateChoice, CertificateWish, Offer, choose, offer_of

log = structlog.get_logger(__name__)

_FIRST_LOOK_S = 0.1
_LONGEST_LOOK_S = 1.0


@dataclass(frozen=True)
class Issuing:
    bus: Bus
    handlers: Handlers
    wait_s: float
    """How long a client is held that knows no other answer than the credential itself."""

    def actions(self) -> Mapping[type, Action]:
        return {
            model.CreateCredential: self.create,
            model.CheckCreation: self.check,
            model.DeleteCredential: self.delete,
            model.ReadRequest: self.read_request,
            model.InstallCertificate: self.install,
            model.RenewCredential: self.renew,
            model.StopCredential: self.stop,
            model.AuthorizeOnce: self.authorize_once,
        }

    async def create(self, caller: Caller, call: model.CreateCredential) -> Created:
        """Order it where the request leads to. Only who can wait is told to."""
        choice = choose(call.wish, offer(caller))
        if call.has_subject_data:
            log.info("subjectData not taken", user_id=call.user_id, authority=choice.authority)
        checked = await self._create(caller, choice, user_id=call.user_id, one_time=False)
        profile = caller.selection.registry.certification_authorities[choice.authority].profiles[choice.profile]
        if not call.waits and profile.issuance != "immediate":
            return Created(_hopeful(checked))
        checked = await self._until_issued(caller, checked)
        if call.waits:
            _check_issued(checked)
        if checked.state == "pending":
            return Created(checked)
        facts = await self.handlers.describe(caller, checked.credential_id)
        return Created(checked, facts)

    async def check(self, caller: Caller, call: model.CheckCreation) -> Created:
        return Created(_hopeful(await self._look(caller, call.handle)))

    async def delete(self, caller: Caller, call: model.DeleteCredential) -> None:
        await self.bus.ask(
            issuance.RemoveCredential(
                secrets=self.handlers.sealed(caller, issuance.RemoveCredential, call.credential_id),
                credential_id=call.credential_id,
                authorities=caller.selection.visible_authorities,
                revoke_as=call.revoke_as,
            )
        )

    async def stop(self, caller: Caller, call: model.StopCredential) -> None:
        await self.bus.ask(
            issuance.StopCredential(
                secrets=self.handlers.sealed(caller, issuance.StopCredential, call.credential_id),
                credential_id=call.credential_id,
                authorities=caller.selection.visible_authorities,
                stopped=call.stopped,
            )
        )

    async def renew(self, caller: Caller, call: model.RenewCredential) -> IssuanceChecked:
        return await self.bus.ask(
            issuance.RenewCredential(
                secrets=self.handlers.sealed(caller, issuance.RenewCredential, call.credential_id),
                credential_id=call.credential_id,
                authorities=caller.selection.visible_authorities,
                rekey=call.rekey,
            )
        )

    async def read_request(self, caller: Caller, call: model.ReadRequest) -> RequestRead:
        return await self.bus.ask(
            issuance.ReadRequest(
                secrets=self.handlers.sealed(caller, issuance.ReadRequest, call.credential_id),
                credential_id=call.credential_id,
                authorities=caller.selection.visible_authorities,
            )
        )

    async def install(self, caller: Caller, call: model.InstallCertificate) -> None:
        await self.bus.ask(
            issuance.InstallCertificate(
                secrets=self.handlers.sealed(caller, issuance.InstallCertificate, call.credential_id),
                credential_id=call.credential_id,
                authorities=caller.selection.visible_authorities,
                chain=call.chain,
            )
        )

    async def authorize_once(self, caller: Caller, call: model.AuthorizeOnce) -> SAD:
        """A key and a certificate for this one authorization. Whatever fails on the way takes them with it."""
        choice = choose(CertificateWish(qualifier=call.qualifier), offer(caller), short_term=True)
        checked = await self._create(caller, choice, user_id=call.user_id, one_time=True)
        credential_id = checked.credential_id
        try:
            _check_issued(await self._until_issued(caller, checked))
            return await self.handlers.authorize(caller, call.on(credential_id))
        except RakkanError:
            await self._take_back(caller, credential_id)
            raise

    async def _create(
        self, caller: Caller, choice: CertificateChoice, *, user_id: str | None, one_time: bool
    ) -> IssuanceChecked:
        return await self.bus.ask(
            issuance.CreateCredential(
                secrets=self.handlers.sealed(caller, issuance.CreateCredential),
                user_id=user_id,
                authority=choice.authority,
                profile=choice.profile,
                one_time=one_time,
            )
        )

    async def _look(self, caller: Caller, credential_id: str) -> IssuanceChecked:
        return await self.bus.ask(
            issuance.CheckIssuance(
                secrets=self.handlers.sealed(caller, issuance.CheckIssuance, credential_id),
                credential_id=credential_id,
            )
        )

    async def _until_issued(self, caller: Caller, checked: IssuanceChecked) -> IssuanceChecked:
        """As it is when it is there, or when the time is over. What was refused is CERTIFICATE_REFUSED."""
        pause_s = _FIRST_LOOK_S
        loop = asyncio.get_running_loop()
        end_s = loop.time() + self.wait_s
        while checked.state == "pending" and loop.time() + pause_s < end_s:
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 1.5, _LONGEST_LOOK_S)
            checked = await self._look(caller, checked.credential_id)
        return _hopeful(checked)

    async def _take_back(self, caller: Caller, credential_id: str) -> None:
        """Now, where that works; else the SAM does it when it sees that nothing comes of it."""
        try:
            await self.delete(caller, model.DeleteCredential(credential_id, None))
        except RakkanError as trouble:
            log.warning("one-time credential left to its time", credential_id=credential_id, code=trouble.code)


def offer(caller: Caller) -> Offer:
    """What the caller may choose from. A signer's word on one CA and profile is a choice already made."""
    selection, token = caller.selection, caller.facts
    service = selection.service
    found = offer_of(
        selection.registry,
        token.tenant_id,
        visible=selection.visible_authorities,
        authority=service.certification_authority if service is not None else None,
        profile=service.certificate_profile if service is not None else None,
    )
    if token.scope != issuance.CREATION or token.authority is None or token.certificate_profile is None:
        return found
    return Offer(found.authorities, CertificateChoice(token.authority, token.certificate_profile), found.foreign)


def _check_issued(checked: IssuanceChecked) -> None:
    if checked.state == "pending":
        raise RakkanError(Code.ISSUANCE_PENDING, f"{checked.credential_id} is not issued yet")


def _hopeful(checked: IssuanceChecked) -> IssuanceChecked:
    """The same, unless nothing will come of it."""
    if checked.state in ("refused", "ended"):
        raise RakkanError(Code.CERTIFICATE_REFUSED, f"{checked.credential_id}: {checked.reason or checked.state}")
    return checked
