"""Privacy over REST: what persons ask for, what they agreed to, how long what is kept, and the record of processing."""

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit
from uuid import UUID

import msgspec
from litestar import Controller, Request, Response, delete, get, post, put
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, JSONBody, Parameter
from litestar.response import Stream

from agents.settings import PROVIDER_URL, ModelSettings
from server.api.fields import Line, Reason, ReasonParameter
from server.jobs.privacy import opened_privacy
from server.mail.settings import MailSettings
from server.protection.uploads import download_headers
from storage.errors import Forbidden, NotFound
from storage.privacy.ropa import Recipient, markdown, record_of
from storage.privacy.rules import MEANINGS, rules_of
from storage.repositories import audit, privacy, tenants
from storage.sql import Session
from storage.tenancy import Database, TenantContext

Limit = Annotated[int, Parameter(ge=1, le=200)]
Days = Annotated[int, msgspec.Meta(ge=1, le=36_500)]
Key = Annotated[str, msgspec.Meta(max_length=40)]
_RIGHT = {"export": "privacy:export", "erasure": "privacy:erase"}


class RequestIn(msgspec.Struct, forbid_unknown_fields=True):
    """``reason`` is kept: it must not name the person."""

    kind: Literal["export", "erasure"]
    contact_id: UUID
    reason: Reason


class PrivacyRequest(msgspec.Struct):
    """``step`` is the last finished one. ``result`` of an erasure is its certificate: counts, destroyed keys, the last look; of an
    export the length and SHA-256 of its file, which can be fetched until ``expires_at``.
    """

    id: UUID
    kind: str
    contact_id: UUID
    requested_by: str
    reason: str
    state: str
    step: str | None
    last_error: str | None
    result: dict[str, Any]
    created_at: datetime
    finished_at: datetime | None
    expires_at: datetime | None


class ConsentIn(msgspec.Struct, forbid_unknown_fields=True):
    """``source`` says where it was given (a form, a call); ``evidence`` holds the words, and is sealed."""

    purpose: Line
    basis: Literal[
        "consent", "contract", "legal_obligation", "vital_interests", "public_task", "legitimate_interests"
    ]
    state: Literal["granted", "withdrawn"]
    source: Line
    evidence: Annotated[str, msgspec.Meta(min_length=1, max_length=10_000)] | None = None


class Consent(msgspec.Struct):
    """``current`` marks the row that counts for its purpose. ``evidence`` is shown to those who may read contacts."""

    id: UUID
    contact_id: UUID
    purpose: str
    basis: str
    state: str
    source: str
    evidence: str | None
    current: bool
    created_at: datetime


class HoldIn(msgspec.Struct, forbid_unknown_fields=True):
    reason: Reason


class Hold(msgspec.Struct):
    contact_id: UUID
    legal_hold: str | None


class RetentionRule(msgspec.Struct):
    """``days`` None: no limit. ``source`` says whose number it is."""

    key: str
    days: int | None
    default_days: int | None
    source: Literal["tenant", "default"]
    meaning: str


class PreviewIn(msgspec.Struct, forbid_unknown_fields=True):
    """Days to be tried out, by key; what is not named stays as it is."""

    days: dict[Key, Days | None] = {}


class Preview(msgspec.Struct):
    """What a run would remove now."""

    rules: list[RetentionRule]
    counts: dict[str, dict[str, int]]


class PrivacyRequestController(Controller):
    path = "/api/v1/privacy/requests"
    tags = ("Privacy",)

    @post(opt={"scopes": ["privacy:read"], "step_up": True}, status_code=202)
    async def ask(
        self,
        data: JSONBody[RequestIn],
        session: NamedDependency[Session],
        context: NamedDependency[TenantContext],
    ) -> PrivacyRequest:
        """Have all data of a contact exported or erased; a worker does it within seconds. Needs privacy:export or privacy:erase.

        An erasure cannot be undone. It is refused (409) while the contact is under legal hold.
        """
        right = _RIGHT[data.kind]
        if right not in context.scopes:
            raise Forbidden("You are not allowed to do this.", missing_scopes=[right])
        request_id = await privacy.add_request(
            session, data.kind, data.contact_id, context.actor, data.reason
        )
        found = await privacy.request(session, request_id)
        await audit.record(
            session,
            context,
            f"privacy.{data.kind}.requested",
            "contact",
            data.contact_id,
            reason=data.reason,
            request=request_id,
        )
        return msgspec.convert(found, PrivacyRequest)

    @get(opt={"scopes": ["privacy:read"]})
    async def list_requests(
        self,
        session: NamedDependency[Session],
        contact_id: FromQuery[UUID | None] = None,
        before: FromQuery[UUID | None] = None,
        limit: FromQuery[Limit] = 50,
    ) -> list[PrivacyRequest]:
        """Requests, newest first. ``before`` is the ``id`` of the last one of the page before."""
        found = await privacy.requests(session, contact_id=contact_id, before=before, limit=limit)
        return msgspec.convert(found, list[PrivacyRequest])

    @get("/{request_id:uuid}", opt={"scopes": ["privacy:read"]})
    async def get_request(
        self, request_id: FromPath[UUID], session: NamedDependency[Session]
    ) -> PrivacyRequest:
        """One request, and what came of it."""
        return msgspec.convert(await privacy.request(session, request_id), PrivacyRequest)

    @get(
        "/{request_id:uuid}/file",
        opt={"scopes": ["privacy:export"], "step_up": True, "limit": "export"},
        media_type="application/zip",
    )
    async def get_file(
        self,
        request_id: FromPath[UUID],
        request: Request[Any, Any, Any],
        session: NamedDependency[Session],
        context: NamedDependency[TenantContext],
    ) -> Stream:
        """The archive of an export, for a week. Check it with ``result.sha256``: a connection that breaks leaves half of it."""
        found = await privacy.request(session, request_id)
        ready = found["state"] == "done" and found["file_id"] is not None
        if not ready or found["expires_at"] <= datetime.now(UTC):
            raise NotFound("There is no file. It is made when the state is done, and kept for a week.")
        content = await request.app.state.parts.files.read(context, session.cipher, found["file_id"])
        if content is None:
            raise NotFound("There is no file any more: the person was erased.")
        await audit.record(
            session, context, "privacy.export.read", "contact", found["contact_id"], request=request_id
        )
        headers = download_headers(f"export-{request_id}.zip")
        return Stream(content, media_type="application/zip", headers=headers)


class PrivacyContactController(Controller):
    path = "/api/v1/privacy/contacts"
    tags = ("Privacy",)

    @get("/{contact_id:uuid}/consents", opt={"scopes": ["privacy:read"]})
    async def list_consents(
        self,
        contact_id: FromPath[UUID],
        session: NamedDependency[Session],
        context: NamedDependency[TenantContext],
        before: FromQuery[UUID | None] = None,
        limit: FromQuery[Limit] = 100,
    ) -> list[Consent]:
        """What a contact agreed to and took back, newest first. ``before`` is the ``id`` of the last one of the page before."""
        found = await privacy.consents(session, contact_id, before=before, limit=limit)
        if "crm:read" not in context.scopes:
            found = [{**row, "evidence": None} for row in found]
        await audit.record(session, context, "consents.read", "contact", contact_id)
        return msgspec.convert(found, list[Consent])

    @post("/{contact_id:uuid}/consents", opt={"scopes": ["privacy:write"]})
    async def add_consent(
        self,
        contact_id: FromPath[UUID],
        data: JSONBody[ConsentIn],
        session: NamedDependency[Session],
        context: NamedDependency[TenantContext],
    ) -> Consent:
        """Note what a contact agreed to or took back. Nothing is overwritten: the newest of a purpose counts."""
        consent_id = await privacy.add_consent(session, contact_id, **msgspec.structs.asdict(data))
        found = next(
            row for row in await privacy.consents(session, contact_id, limit=1) if row["id"] == consent_id
        )
        await audit.record(
            session, context, f"consent.{data.state}", "contact", contact_id, consent=consent_id
        )
        return msgspec.convert(found, Consent)

    @put("/{contact_id:uuid}/legal-hold", opt={"scopes": ["privacy:write"]})
    async def hold(
        self,
        contact_id: FromPath[UUID],
        data: JSONBody[HoldIn],
        session: NamedDependency[Session],
        context: NamedDependency[TenantContext],
    ) -> Hold:
        """Keep a contact's data whatever is asked or over its time. The reason must not name the person."""
        if await privacy.set_legal_hold(session, contact_id, data.reason):
            await audit.record(session, context, "legal_hold.set", "contact", contact_id, reason=data.reason)
        return Hold(contact_id, data.reason)

    @delete("/{contact_id:uuid}/legal-hold", opt={"scopes": ["privacy:write"]}, status_code=200)
    async def lift(
        self,
        contact_id: FromPath[UUID],
        reason: FromQuery[ReasonParameter],
        session: NamedDependency[Session],
        context: NamedDependency[TenantContext],
    ) -> Hold:
        """Lift a legal hold, with a reason that does not name the person."""
        if await privacy.set_legal_hold(session, contact_id, None):
            await audit.record(session, context, "legal_hold.lifted", "contact", contact_id, reason=reason)
        return Hold(contact_id, None)


class PrivacyRulesController(Controller):
    path = "/api/v1/privacy"
    tags = ("Privacy",)

    @get("/retention", opt={"scopes": ["privacy:read"]})
    async def retention(
        self, session: NamedDependency[Session], context: NamedDependency[TenantContext]
    ) -> list[RetentionRule]:
        """How long what is kept: the business's own number of days, or the default."""
        settings = (await tenants.get(session, context.tenant_id)).settings
        return _shown(rules_of(settings))

    @post("/retention/preview", opt={"scopes": ["privacy:read"], "idempotent": False}, status_code=200)
    async def preview(
        self,
        data: JSONBody[PreviewIn],
        request: Request[Any, Any, Any],
        context: NamedDependency[TenantContext],
    ) -> Preview:
        """What would be removed if the rules, or those that are tried out here, were carried out now. Changes nothing."""
        if unknown := sorted(set(data.days) - set(MEANINGS)):
            raise NotFound(f"There is no retention rule named {unknown[0]}.")
        parts = request.app.state.parts
        database: Database = parts.database
        async with opened_privacy(database, parts.files, parts.bus, parts.storage) as job:
            report = await job.retention.run(context.tenant_id, dry_run=True, proposed=data.days)
        return Preview(_shown(report.rules), report.counts)

    @get(
        "/record-of-processing",
        opt={"scopes": ["privacy:read"], "produces": ("application/json", "text/markdown")},
    )
    async def record_of_processing(
        self,
        request: Request[Any, Any, Any],
        session: NamedDependency[Session],
        context: NamedDependency[TenantContext],
    ) -> Response[Any]:
        """The record of processing activities (Art. 30 GDPR), as JSON or, with ``Accept: text/markdown``, as a document."""
        tenant = await tenants.get(session, context.tenant_id)
        record = record_of(tenant.name, rules_of(tenant.settings), recipients(), datetime.now(UTC))
        if request.accept.best_match(["application/json", "text/markdown"]) == "text/markdown":
            return Response(markdown(record), media_type="text/markdown")
        return Response(asdict(record), media_type="application/json")


def recipients() -> list[Recipient]:
    """To whom data goes, as this installation is configured. Hosts only: an address may hold a password."""
    found = [
        Recipient("members of staff of the business", "what their role allows"),
        Recipient("operator of this installation", "the databases and files, encrypted; processor (Art. 28)"),
    ]
    models, mail = ModelSettings(), MailSettings()
    if models.provider_configured:
        host = urlsplit(models.openai_base_url or PROVIDER_URL).hostname
        found.append(
            Recipient(
                f"model provider ({host})",
                "texts of conversations with placeholders instead of what identifies a person, as far as it is recognised",
                third_country=True,
            )
        )
    if mail.mail_url is not None and not mail.mail_url.get_secret_value().startswith("file:"):
        host = urlsplit(mail.mail_url.get_secret_value()).hostname
        found.append(Recipient(f"mail server ({host})", "names and e-mail addresses of members of staff"))
    return found


def _shown(rules: dict[str, Any]) -> list[RetentionRule]:
    return [
        RetentionRule(
            rule.key, rule.days, rule.default, "tenant" if rule.own else "default", MEANINGS[rule.key]
        )
        for rule in rules.values()
    ]


CONTROLLERS: tuple[type, ...] = (PrivacyRequestController, PrivacyContactController, PrivacyRulesController)
