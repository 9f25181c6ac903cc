"""Probes over HTTP: every route, method and place for an id, by people and a program of tenant B, with each id that A has; and what A's
own credentials open with B's.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import httpx
from litestar import Litestar

from server.channels.widget.frames import visitor_id
from storage.permissions import PERMISSIONS, SYSTEM_ROLES
from storage.repositories import members, threads
from storage.tenancy import TenantContext
from tests.isolation.full import FullTenant
from tests.isolation.tally import Tally
from tests.isolation.walk import CURSORS, Answer, Operation, ask, operations, told
from tests.support.edge import header_of, signed_in, someone

PROGRAM = tuple(name for name in PERMISSIONS if name not in ("members:write", "roles:write", "keys:write"))


@dataclass(frozen=True)
class Door:
    """The application, and those of B who ask."""

    app: Litestar
    client: httpx.AsyncClient
    people: dict[str, dict[str, str]]


async def door(app: Litestar, client: httpx.AsyncClient, b: FullTenant, roles: Sequence[str]) -> Door:
    """People of B with these roles, one with all rights, and an API key."""
    people = {"everything": signed_in(app, b.tenant, tuple(PERMISSIONS))}
    for role in SYSTEM_ROLES:
        if role.key in roles:
            people[role.key] = header_of(app, someone(app, b.tenant, role=role.key))
    if "API key" in roles:
        people["API key"] = {"authorization": f"Bearer {await api_key(app, b)}"}
    return Door(app, client, people)


async def api_key(app: Litestar, of: FullTenant) -> str:
    """A key with all that a program may do."""
    fresh = app.state.identity.keys.new()
    async with app.state.parts.database.tenant_session(of.tenant.context) as session:
        account = await members.add_service_account(session, f"Probe {uuid4().hex}", list(PROGRAM))
        await members.add_key(
            session,
            account,
            name="probe",
            prefix=fresh.prefix,
            key_hash=fresh.digest,
            scopes=list(PROGRAM),
            allowed_networks=[],
            expires_at=None,
        )
    return str(fresh.clear)


async def probe_ids(at: Door, tally: Tally, a: FullTenant, ids: Sequence[UUID], only: str = "") -> None:
    """Each id of A's in each place, against what an id that is nobody's gives."""
    for operation in operations(at.app):
        if only not in operation.path:
            continue
        for place in operation.id_parameters:
            for who, headers in at.people.items():
                for variant in operation.variants():
                    await _probe_place(at, tally, a, operation, place, who, headers, variant, ids)


async def _probe_place(
    at: Door,
    tally: Tally,
    a: FullTenant,
    operation: Operation,
    place: tuple[str, str],
    who: str,
    headers: dict[str, str],
    variant: dict[str, Any],
    ids: Sequence[UUID],
) -> None:
    others = {one: uuid4() for one in operation.id_parameters if one[0] == "path"}
    kind = f"http: {place[0]}"

    async def answer(ident: UUID) -> Answer:
        return await ask(at.client, operation, headers, {**others, place: ident}, variant)

    unknown = await answer(uuid4())
    if unknown.status in (400, 405, 415):
        tally.skipped[f"{operation.name} {place[1]}: {unknown.status}"] += 1
    # Who is refused before any record is looked for gets the same for every id: two are enough.
    for ident in ids if unknown.status != 403 else ids[:2]:
        foreign = await answer(ident)
        if place[1] in CURSORS:
            held = (
                not set(told(a.every_id, a.canary, foreign.raw)) - {str(ident)}
                and foreign.status == unknown.status
            )
        else:
            held = foreign == unknown
        tally.judge(held, kind, operation.name, place[1], str(variant), who, str(ident))


async def probe_lists(at: Door, tally: Tally, a: FullTenant) -> None:
    """Nothing of A in what B reads without naming an id: lists, search, export, the audit log, the record of processing."""
    for operation in operations(at.app):
        if operation.method != "GET" or "{" in operation.path:
            continue
        for who, headers in at.people.items():
            answer = await ask(at.client, operation, headers, {}, {})
            text = answer.raw.decode("utf-8", "replace")
            for needle in (*map(str, a.every_id), a.canary, a.email):
                tally.judge(needle not in text, "http: list", operation.path, who, needle)
    for who, headers in at.people.items():
        for query in (a.canary, a.email, f"The {a.canary} costs 480 euros", "price", "Monday"):
            answer_ = await at.client.post(
                "/api/v1/knowledge/search", json={"query": query, "limit": 50}, headers=headers
            )
            found = [str(one["document_id"]) for one in answer_.json()] if answer_.status_code == 200 else []
            tally.judge(str(a.document_id) not in found, "http: search", query, who)


async def probe_idempotency(at: Door, tally: Tally, a: FullTenant) -> None:
    """A key that A has used is B's to use: B's request is carried out, and A's answer is not replayed."""
    theirs = signed_in(at.app, a.tenant, tuple(PERMISSIONS))
    for number in range(25):
        key = f"{a.canary}-{number}"
        body = {"email": f"{number}@{a.canary}.example"}
        first = await at.client.post(
            "/api/v1/crm/contacts", json=body, headers={**theirs, "idempotency-key": key}
        )
        for who, headers in at.people.items():
            second = await at.client.post(
                "/api/v1/crm/contacts", json=body, headers={**headers, "idempotency-key": key}
            )
            held = "idempotent-replayed" not in second.headers and first.json()["id"] not in second.text
            tally.judge(held, "http: idempotency key", number, who)


async def probe_credentials(at: Door, tally: Tally, a: FullTenant, b: FullTenant) -> None:
    """What A's people show opens A and nothing else, whatever of B's is put beside it; and cut or changed it opens nothing."""
    paths = (
        "/api/v1/auth/me",
        "/api/v1/tenants/current",
        "/api/v1/crm/contacts",
        "/api/v1/inbox/threads",
        "/api/v1/members",
    )
    person = someone(at.app, a.tenant, tuple(PERMISSIONS))
    theirs = {
        "token": header_of(at.app, person)["authorization"],
        "API key": f"Bearer {await api_key(at.app, a)}",
    }
    mine = at.people["everything"]["authorization"]
    for path in paths:
        for what, shown in theirs.items():
            for beside in (
                {"cookie": f"__Host-sid={mine[7:]}"},
                {"x-tenant-id": str(b.tenant.info.id)},
                {"x-tenant": b.tenant.info.slug},
                {"x-forwarded-user": str(b.tenant.staff_id)},
                {"host": f"{b.tenant.info.slug}.example"},
            ):
                answer = await at.client.get(path, headers={"authorization": shown, **beside})
                held = not told(b.every_id, b.canary, answer.content)
                tally.judge(held, "credentials: beside", path, what, next(iter(beside)))
            for ident in (b.tenant.info.id, b.tenant.info.slug):
                answer = await at.client.get(
                    path, params={"tenant_id": str(ident)}, headers={"authorization": shown}
                )
                tally.judge(
                    not told(b.every_id, b.canary, answer.content),
                    "credentials: query",
                    path,
                    what,
                    str(ident),
                )
        head, middle, tail = mine.removeprefix("Bearer ").split(".")
        other = theirs["token"].removeprefix("Bearer ").split(".")
        mixed = {
            "B's claims under A's signature": f"{head}.{middle}.{other[2]}",
            "A's claims under B's signature": f"{head}.{other[1]}.{tail}",
            "no signature": f"{head}.{other[1]}.",
            "another head": f"{other[0][:-2]}AA.{other[1]}.{other[2]}",
        }
        for what, token in mixed.items():
            answer = await at.client.get(path, headers={"authorization": f"Bearer {token}"})
            tally.judge(answer.status_code == 401, "credentials: mixed", path, what)
    await _probe_token_places(
        at, tally, theirs["token"].removeprefix("Bearer "), theirs["API key"].removeprefix("Bearer ")
    )


async def _probe_token_places(at: Door, tally: Tally, token: str, key: str) -> None:
    """A token of one kind is none of another."""
    routes: dict[str, dict[str, Any]] = {
        "/api/v1/auth/refresh": {"refresh_token": ""},
        "/api/v1/auth/verify-email": {"token": ""},
        "/api/v1/auth/password/reset": {"token": "", "password": "plum kettle orbit sandwich 41"},
        "/api/v1/auth/invitations/accept": {
            "token": "",
            "name": "X",
            "password": "plum kettle orbit sandwich 41",
        },
    }
    for path, body in routes.items():
        for what, shown in (("token", token[-190:]), ("API key", key)):
            name = next(name for name, value in body.items() if value == "")
            answer = await at.client.post(path, json={**body, name: shown})
            tally.judge(answer.status_code >= 400, "credentials: another kind", path, what)
    for what, shown in (("token", token), ("API key", key)):
        answer = await at.client.get("/api/v1/auth/me", headers={"cookie": f"__Host-sid={shown}"})
        tally.judge(answer.status_code == 401, "credentials: another kind", "cookie", what)


async def probe_widget(at: Door, tally: Tally, a: FullTenant, b: FullTenant) -> None:
    """A's visitor on B's channel is somebody new: the session id opens a thread of B's, without a message."""
    async with at.app.state.parts.database.tenant_session(
        TenantContext(b.tenant.info.id, actor="contact:probe")
    ) as session:
        opened, _, last = await threads.open_thread(
            session, b.tenant.channel.id, visitor_id(a.visitor_session)
        )
        found = await threads.messages_after(session, opened, 0, 100)
        tally.judge(
            opened != a.visitor.thread_id and last == 0 and not found, "widget: A's visitor on B's channel"
        )
        for ident in sorted(a.every_id):
            tally.judge(
                not await threads.messages_after(session, ident, 0, 100),
                "widget: messages of a thread",
                str(ident),
            )
    await asyncio.sleep(0)
