"""A business and what its owners decide about it. The fields of ``tenants.settings`` are those of ``Settings``."""

import re
import secrets
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Annotated, Any
from uuid import UUID
from zoneinfo import available_timezones

import msgspec
from msgspec import Meta

from server.auth import iso
from server.auth.caller import Caller
from server.auth.identity import Identity, Where
from server.auth.rights import require_own, require_own_proof
from server.protection.cors import is_origin
from storage.errors import Conflict, Forbidden, ValidationFailed
from storage.outbound import check_url
from storage.permissions import OWNER
from storage.registry import RETENTION_DAYS
from storage.repositories import accounts
from storage.repositories.tenants import TenantRecord
from storage.sql import Session

MAX_OWNED = 20
RESERVED = frozenset({"callback", "identities", "link", "platform"})
"""No business's short name: /api/v1/auth/sso/ has addresses of these names."""
MIN_AUDIT_DAYS = 30
"""storage/migrations/audit_functions.py removes nothing younger either."""

# As server.api.fields.Name, which this layer does not import.
_CONTROL = r"\x00-\x1f\x7f-\x9f\u2028\u2029\ufeff"
_TITLE = Meta(
    min_length=1,
    max_length=120,
    pattern=rf"^[^{_CONTROL}]*[^\s{_CONTROL}][^{_CONTROL}]*$(?!\n)",
)


class Branding(msgspec.Struct, forbid_unknown_fields=True):
    """How the business shows itself: title, a colour as #rrggbb, and the https address of its logo."""

    title: Annotated[str, _TITLE] | None = None
    color: Annotated[str, Meta(pattern=r"^#[0-9a-fA-F]{6}$(?!\n)")] | None = None
    logo_url: Annotated[str, Meta(max_length=2000)] | None = None


class Settings(msgspec.Struct):
    """What stands in ``tenants.settings``. ``retention``: days for each key that differs from storage.registry's."""

    regions: list[str] = []
    policies: dict[str, str] = {}
    branding: Branding = msgspec.field(default_factory=Branding)
    require_second_factor: bool = False
    retention: dict[str, int] = {}


LANGUAGES = ("en", "de")
"""Of a new business: the languages that the product speaks without being told more."""


def slug_of(name: str) -> str:
    """A short name for addresses: small letters, digits and hyphens."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:60] or "business"


def settings_of(record: TenantRecord) -> Settings:
    """The settings with their types; fields of other parts of the product are left out."""
    return msgspec.convert(record.settings, Settings)


def changed(record: TenantRecord, wanted: Mapping[str, Any]) -> tuple[TenantRecord, list[str]]:
    """(the record as it shall be, names of the fields that differ).

    Args:
        wanted: fields of ``TenantRecord`` with new values; ``settings`` has those of ``Settings`` that shall differ. Types and
            lengths were checked.

    Raises:
        ValidationFailed, OutboundRefused: a value is of the right form and means nothing; ``details.field`` says which.
    """
    values = {name: _meant(name, value) for name, value in wanted.items() if name != "settings"}
    settings = {name: _meant(f"settings.{name}", value) for name, value in wanted.get("settings", {}).items()}
    fields = [name for name, value in values.items() if value != getattr(record, name)]
    before = msgspec.to_builtins(settings_of(record))
    fields += [f"settings.{name}" for name, value in settings.items() if value != before[name]]
    return replace(record, **values, settings={**record.settings, **settings}), fields


def _meant(field: str, value: Any) -> Any:
    """The value in the form in which it is stored."""
    match field:
        case "name":
            return value.strip()
        case "languages":
            return tuple(_listed(value, iso.LANGUAGES, field))
        case "time_zone":
            require_time_zone(value)
        case "cors_origins":
            return tuple(_origins(value))
        case "settings.regions":
            return _listed(value, iso.COUNTRIES, field)
        case "settings.branding":
            logo = value["logo_url"]
            return {**value, "logo_url": None if logo is None else check_url(logo)}
        case "settings.retention":
            return _retention(value)
    return value


def _listed(values: Iterable[str], codes: frozenset[str], field: str) -> list[str]:
    """The codes in the order that was given, each once: the first language is the business's own."""
    wanted = list(dict.fromkeys(values))
    if unknown := [value for value in wanted if value not in codes]:
        raise ValidationFailed("There is no such code.", field=field, unknown=unknown)
    return wanted


def _origins(values: Iterable[str]) -> list[str]:
    wanted = list(dict.fromkeys(values))
    for position, origin in enumerate(wanted):
        if not is_origin(origin):
            raise ValidationFailed(
                "Give each origin as browsers send it, such as https://www.example.org: small letters, no path.",
                field="cors_origins",
                position=position,
            )
    return wanted


def _retention(days: Mapping[str, int]) -> dict[str, int]:
    if unknown := sorted(set(days) - set(RETENTION_DAYS)):
        raise ValidationFailed(
            "Nothing is kept under this name.", field="settings.retention", unknown=unknown
        )
    if days.get("audit", MIN_AUDIT_DAYS) < MIN_AUDIT_DAYS:
        raise ValidationFailed(
            f"The audit log is kept for {MIN_AUDIT_DAYS} days at least.", field="settings.retention"
        )
    return dict(days)


def require_time_zone(name: str) -> None:
    """Refuse what is no name of the IANA time zone database.

    Raises:
        ValidationFailed: it is none.
    """
    if name not in available_timezones():
        raise ValidationFailed(
            "This time zone is not known. Use a name like Europe/Vienna.", field="time_zone"
        )


async def open_another(
    identity: Identity, caller: Caller, *, name: str, language: str, time_zone: str, where: Where
) -> UUID:
    """Open another business for somebody who is signed in; they own it. It is active at once: their address is verified.

    Raises:
        Forbidden: this installation takes nobody in, the address is not verified, or a business's provider signed the person in.
        Conflict: the person owns enough of them.
    """
    require_own(caller)
    require_own_proof(caller)
    assert caller.account_id is not None
    if not identity.settings.sign_up:
        raise Forbidden("New businesses cannot be opened here. Ask the operator.")
    _listed([language], iso.LANGUAGES, "language")
    require_time_zone(time_zone)
    async with identity.database.identity_session() as session:
        account = await accounts.by_id(session, caller.account_id)
        if account.email_verified_at is None:
            raise Forbidden("Verify your e-mail address first.", reason="email")
        owned = [one for one in await accounts.memberships(session, account.id) if one.role == OWNER]
        if len(owned) >= MAX_OWNED:
            raise Conflict(f"You own {MAX_OWNED} businesses. More are opened by the operator.")
        tenant_id = await add_tenant(session, name, language, time_zone, state="active")
        await accounts.join(session, tenant_id, account, await accounts.role_id(session, tenant_id, OWNER))
        await identity.record(session, account.id, "tenant.opened", where, tenant_id=tenant_id)
    identity.principals.forget_account(caller.account_id)
    return tenant_id


async def add_tenant(session: Session, name: str, language: str, time_zone: str, *, state: str) -> UUID:
    """A new business under a short name that is free (identity session).

    Raises:
        Conflict: none of five short names was.
    """
    slug = slug_of(name)
    languages = [language, *(one for one in LANGUAGES if one != language)]
    for attempt in range(5):
        suffix = "" if attempt == 0 and slug not in RESERVED else f"-{secrets.token_hex(3)}"
        made = await accounts.add_tenant(
            session,
            slug=slug[:50].rstrip("-") + suffix,
            name=name.strip(),
            languages=languages,
            time_zone=time_zone,
            state=state,
        )
        if made is not None:
            return made
    raise Conflict("No short name is free for this business. Choose another name.")
