"""Sequences of everything that can happen to a person's access, against a model of what should.

Real services over a real database. Replaced, for this test only: the cost of hashing passwords (argon2's least), the clock of the codes
(so that a step is a number), the counters' clock, which leaps hours ahead so that wrong attempts do not lock the person out (lock-out
has its own tests), and the judgement of passwords (they are all good here). ``MACHINE_EXAMPLES=2000`` runs that many sequences.
"""

import asyncio
import itertools
import os
from collections.abc import Awaitable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pyotp
import pytest
from argon2 import PasswordHasher
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from server.auth import accounts, factors, passwords, sign_in
from server.auth.caller import Caller
from server.auth.devices import DeviceCookies
from server.auth.factors import Proof
from server.auth.identity import Identity, Where, close_identity, make_identity
from server.auth.lockout import Guard
from server.auth.password_policy import Verdict
from server.auth.settings import AuthSettings
from server.deps import build_parts
from server.settings import ServerSettings
from storage.errors import AppError
from storage.ids import new_id
from storage.repositories import accounts as rows
from storage.repositories import members, sessions
from storage.settings import StorageSettings
from storage.sql import text
from storage.tenancy import PLATFORM_TENANT, TenantContext
from tests.server.auth.sign_in_model import (
    REFUSED,
    Answer,
    Challenge,
    Cookie,
    Link,
    Model,
    Refresh,
    Session,
    Token,
)
from tests.support.servers import SECRET_KEY
from tests.support.world import TestTenant, make_tenant

EXAMPLES = int(os.environ.get("MACHINE_EXAMPLES", "50"))
STEPS = 40
PASSWORDS = [
    "plum kettle orbit sandwich 41",
    "quartz violin thunder meadow 77",
    "cobalt harvest pigeon lantern 9",
]
ROLES = ["staff", "owner", "read_only"]
EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
WRONG_CODE = "not a code"
numbers, tenants, picks = st.integers(0, 2), st.integers(0, 1), st.integers(0, 5)
maybe_tenant, kinds = st.sampled_from([None, 0, 1]), st.sampled_from(["browser", "program"])


class Clock:
    """Stands in for ``datetime`` in the module of the second factors."""

    step = 0

    @classmethod
    def now(cls, _zone: Any = None) -> datetime:
        return EPOCH + timedelta(seconds=30 * cls.step)


@dataclass
class World:
    """What all sequences share: the services, two businesses, each with an owner who stays."""

    runner: asyncio.Runner
    identity: Identity
    tenants: list[TestTenant]
    hashed: str
    steps: int = 0
    sequences: int = 0
    answers: int = 0

    def run(self, work: Awaitable[Any]) -> Any:
        async def outcome() -> Any:
            try:
                return await work
            except AppError as refused:
                return refused

        return self.runner.run(outcome())

    def sql(self, statement: str, **values: Any) -> Any:
        async def run() -> Any:
            async with self.identity.database.identity_session() as session:
                result = await session.execute(text(statement), values)
                return result.all() if result.returns_rows else None

        return self.run(run())


async def _good(*_: Any) -> Verdict:
    return Verdict((), "off")


@pytest.fixture
def world(storage_settings: StorageSettings, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    cheap = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
    monkeypatch.setattr(passwords, "_HASHER", cheap)
    monkeypatch.setattr(passwords, "_NOBODY", cheap.hash("nobody has this password"))
    monkeypatch.setattr(factors, "datetime", Clock)
    hours = itertools.count(1)
    with asyncio.Runner() as runner:

        async def build() -> tuple[Any, Identity, list[TestTenant]]:
            parts = build_parts("test", ServerSettings(), storage_settings)
            identity = make_identity(parts.database, storage_settings, AuthSettings())
            monkeypatch.setattr(identity.policy, "check", _good)
            guard = Guard(SECRET_KEY, DeviceCookies(SECRET_KEY), None, now=lambda: next(hours) * 7200.0)
            made = [await make_tenant(parts, slug) for slug in ("acme", "globex")]
            return parts, replace(identity, guard=guard), made

        parts, identity, made = runner.run(build())
        shared = World(runner, identity, made, passwords.hash_password(PASSWORDS[0]))
        for tenant in made:
            shared.sql(
                "update members set role_id = (select id from roles r where r.tenant_id = members.tenant_id and key = 'owner')"
                " where account_id = :id",
                id=tenant.staff_id,
            )
        yield shared
        runner.run(close_identity(identity))
        runner.run(parts.aclose())


class Access(RuleBasedStateMachine):
    """One sequence: a person of their own, who is a member of both businesses."""

    world: World

    @initialize(kind=kinds, protected=st.booleans())
    def begin(self, kind: str, protected: bool) -> None:
        self.model = Model()
        Clock.step = 1000
        self.model.step = 1000
        self.email, self.secret, self.codes = f"{new_id().hex}@people.example", "", ["x"] * 0
        self.shown: dict[int, str] = {}  # what stands for a cookie or token of the model
        self.outstanding: list[Cookie | Token] = []
        self.refreshes: list[Refresh] = []
        self.links: list[str] = []
        self.challenges: list[tuple[Challenge, str]] = []
        self.ids: dict[int, UUID] = {}
        self.members: list[UUID] = []
        self.account = self.world.run(self._person())
        # Nothing is of interest before somebody is signed in, and half of it only with a second factor.
        self.sign_in_rightly(None, kind)
        if protected:
            self.add_totp(0)

    async def _person(self) -> UUID:
        async with self.world.identity.database.identity_session() as session:
            for tenant in self.world.tenants:
                await session.execute(
                    text("update tenants set state = 'active' where id = :id"), {"id": tenant.info.id}
                )
            await rows.add(
                session,
                email=self.email,
                name="Pat",
                password_hash=self.world.hashed,
                language="en",
                verified=True,
            )
            account = await rows.by_email(session, self.email)
            assert account is not None
            for tenant in self.world.tenants:
                role = await rows.role_id(session, tenant.info.id, "staff")
                await rows.join(session, tenant.info.id, account, role)
                found = await session.scalar(
                    text("select id from members where account_id = :id and tenant_id = :tenant"),
                    {"id": account.id, "tenant": tenant.info.id},
                )
                self.members.append(found)
        return account.id

    @property
    def where(self) -> Where:
        return Where("192.0.2.1", None, None, "https://app.example", "req_x")

    def code(self, step: int | None) -> str:
        if step is None or not self.secret:
            return WRONG_CODE
        return pyotp.TOTP(self.secret).generate_otp(pyotp.TOTP(self.secret).timecode(EPOCH) + step)

    # --- holding on to what is handed out ---

    def keep(self, made: sign_in.SignedIn, session: Session) -> None:
        self.ids[id(session)] = made.session_id
        if session.kind == "browser":
            assert made.cookie is not None
            assert made.access_token is None
            self.keep_cookie(session, made.cookie)
        else:
            assert made.cookie is None
            self.keep_token(session, made.access_token)
            self.keep_refresh(session.family[-1], made.refresh_token)

    def keep_cookie(self, session: Session, clear: str | None) -> None:
        assert session.current is not None
        assert clear is not None
        self.shown[id(session.current)] = clear
        self.outstanding.append(session.current)

    def keep_token(self, session: Session, clear: str | None) -> None:
        assert clear is not None
        token = self.model.token(session)
        self.shown[id(token)] = clear
        self.outstanding.append(token)

    def keep_refresh(self, refresh: Refresh, clear: str | None) -> None:
        assert clear is not None
        self.shown[id(refresh)] = clear
        self.refreshes.append(refresh)

    # --- what a request gets ---

    def ask(self, shown: Cookie | Token) -> tuple[Answer, Caller | None]:
        """The guard's decision. Its memory of ten seconds is emptied before: it has tests of its own, with other clocks."""
        principals = self.world.identity.principals
        principals._known.clear()
        look = principals.by_cookie if isinstance(shown, Cookie) else principals.by_token
        expected = self.model.answer(shown)
        renewal = isinstance(shown, Cookie) and self.model.renewal_due(shown)
        found = self.world.run(look(self.shown[id(shown)], None))
        self.world.answers += 1
        if isinstance(found, AppError):
            actual: Answer = (found.status, None, [], False)
            assert actual == expected
            return actual, None
        caller = found.caller
        status = 403 if caller.blocked else 200
        actual = (status, caller.blocked, sorted(caller.context.scopes), caller.fresh(datetime.now(UTC)))
        assert actual == expected
        tenant = shown.session.tenant
        wanted = PLATFORM_TENANT if tenant is None else self.world.tenants[tenant].info.id
        assert caller.context.tenant_id == wanted
        assert (found.new_cookie is not None) == renewal
        if found.new_cookie is not None:
            self.model.renew(shown.session)
            self.keep_cookie(shown.session, found.new_cookie)
        return actual, caller

    @property
    def good(self) -> list[Cookie | Token]:
        return [one for one in self.outstanding if self.model.answer(one) != REFUSED]

    def somebody(self, pick: int) -> tuple[Session, Caller]:
        """One of the credentials that are let in."""
        good = self.good
        shown = good[pick % len(good)]
        caller = self.ask(shown)[1]
        assert caller is not None
        return shown.session, caller

    @invariant()
    def every_credential_gets_what_the_model_says(self) -> None:
        if not hasattr(self, "account"):
            return
        self.world.steps += 1  # with the first, before which nothing has happened
        for shown in self.outstanding[-4:]:
            self.ask(shown)

    def teardown(self) -> None:
        if not hasattr(self, "account"):
            return
        for shown in list(self.outstanding):
            self.ask(shown)
        told = self.world.sql(
            "select count(*) as n from mails where account_id = :id and template = 'refresh_reuse'",
            id=self.account,
        )
        assert told[0].n == self.model.reuses
        self.world.sequences += 1

    # --- signing in ---

    @rule(password=numbers, tenant=maybe_tenant, kind=kinds)
    def sign_in(self, password: int, tenant: int | None, kind: Any) -> None:
        expected = self.model.first_step(password, tenant, kind)
        slug = None if tenant is None else self.world.tenants[tenant].info.slug
        got = self.world.run(
            sign_in.by_password(self.world.identity, self.email, PASSWORDS[password], slug, kind, self.where)
        )
        if expected is None:
            assert got.status == 401
        elif isinstance(expected, Challenge):
            assert got.factors == (["totp", "recovery_code"] if self.model.recovery else ["totp"])
            self.challenges.append((expected, got.token))
        else:
            self.keep(got, expected)

    @rule(tenant=maybe_tenant, kind=kinds)
    def sign_in_rightly(self, tenant: int | None, kind: Any) -> None:
        self.sign_in(self.model.password, tenant, kind)

    @precondition(lambda self: bool(self.challenges))
    @rule(pick=picks, back=st.sampled_from([None, -2, -1, 0, 0, 0, 1]))
    def second_factor_by_code(self, pick: int, back: int | None) -> None:
        step = None if back is None else self.model.step + back
        self._second(pick, step, None, Proof(code=self.code(step)))

    @precondition(lambda self: bool(self.challenges))
    @rule(pick=picks, number=st.integers(0, 29))
    def second_factor_by_recovery_code(self, pick: int, number: int) -> None:
        clear = self.codes[number] if number < len(self.codes) else "no code"
        self._second(pick, None, number, Proof(recovery_code=clear))

    @rule(
        tenant=maybe_tenant, kind=kinds, back=st.sampled_from([0, 0, 1, -1, None]), number=st.integers(0, 3)
    )
    def sign_in_by_both_steps(self, tenant: int | None, kind: Any, back: int | None, number: int) -> None:
        """Written out as one, because chance seldom puts the two steps together; with few codes, so that some come twice."""
        self.sign_in(self.model.password, tenant, kind)
        if not (self.model.totp and self.model.active):
            return
        if back is None:
            self.second_factor_by_recovery_code(0, len(self.codes) - 1 - number)
        else:
            self.second_factor_by_code(0, back)

    def _second(self, pick: int, step: int | None, recovery: int | None, proof: Proof) -> None:
        challenge, token = self.challenges[-1 - pick % len(self.challenges)]
        expected = self.model.second_step(challenge, step=step, recovery=recovery)
        got = self.world.run(sign_in.by_second_factor(self.world.identity, token, proof, self.where))
        if expected is None:
            assert got.status == 401
        else:
            self.keep(got, expected)

    @precondition(lambda self: bool(self.refreshes))
    @rule(pick=picks)
    def refresh(self, pick: int) -> None:
        shown = self.refreshes[-1 - pick % len(self.refreshes)]
        expected = self.model.refresh(shown)
        got = self.world.run(sign_in.refresh(self.world.identity, self.shown[id(shown)], self.where))
        if expected == 200:
            self.keep_token(shown.session, got[0])
            self.keep_refresh(shown.session.family[-1], got[1])
        else:
            assert got.status == expected

    # --- sessions ---

    @precondition(lambda self: bool(self.good))
    @rule(pick=picks, tenant=tenants)
    def switch_tenant(self, pick: int, tenant: int) -> None:
        session, caller = self.somebody(pick)
        slug = self.world.tenants[tenant].info.slug
        got = self.world.run(sign_in.switch_tenant(self.world.identity, caller, slug, self.where))
        if not self.model.switch(session, tenant):
            assert got.status == 404
            return
        self._renewed(session, got)

    def _renewed(self, session: Session, got: tuple[str | None, str | None]) -> None:
        if session.kind == "browser":
            self.keep_cookie(session, got[0])
        else:
            self.keep_token(session, got[1])

    @precondition(lambda self: bool(self.good))
    @rule(pick=picks, password=st.sampled_from([None, 0, 1, 2]), back=st.sampled_from([-1, 0, 0, 1]))
    def step_up(self, pick: int, password: int | None, back: int) -> None:
        session, caller = self.somebody(pick)
        step = self.model.step + back if password is None else None
        proof = Proof(code=self.code(step)) if password is None else Proof(password=PASSWORDS[password])
        good = self.model.step_up(session, password, step)
        got = self.world.run(sign_in.step_up(self.world.identity, caller, proof, self.where))
        if good:
            self._renewed(session, got)
        else:
            assert got.status == 401

    @precondition(lambda self: bool(self.good))
    @rule(pick=picks)
    def sign_out(self, pick: int) -> None:
        session, caller = self.somebody(pick)
        session.alive = False
        assert self.world.run(sign_in.sign_out(self.world.identity, caller, self.where)) is None

    @precondition(lambda self: bool(self.model.sessions))
    @rule(pick=picks)
    def end_another(self, pick: int) -> None:
        session = self.model.sessions[pick % len(self.model.sessions)]
        assert self._end(self.ids[id(session)]) == session.alive
        session.alive = False

    def _end(self, session_id: UUID) -> Any:
        async def end() -> bool:
            async with self.world.identity.database.identity_session() as session:
                return await sessions.revoke(session, session_id, "test", account_id=self.account)

        return self.world.run(end())

    @precondition(lambda self: bool(self.good))
    @rule(pick=picks)
    def end_all_others(self, pick: int) -> None:
        session, caller = self.somebody(pick)

        async def end() -> None:
            async with self.world.identity.database.identity_session() as rows_:
                await sessions.revoke_all(rows_, self.account, "test", but=caller.session_id)

        self.world.run(end())
        self.model.end(but=session)

    # --- the account ---

    @precondition(lambda self: bool(self.good))
    @rule(pick=picks, current=numbers, new=numbers)
    def change_password(self, pick: int, current: int, new: int) -> None:
        session, caller = self.somebody(pick)
        got = self.world.run(
            accounts.change_password(
                self.world.identity, caller, PASSWORDS[current], PASSWORDS[new], self.where
            )
        )
        if self.model.change_password(session, current, new):
            assert got is None
        else:
            assert got.status == 401

    @rule()
    def ask_for_a_reset(self) -> None:
        self.world.run(accounts.request_link(self.world.identity, self.email, self.where))
        if self.model.active:
            self.links.append(self.world.run(self._newest_link()))
            self.model.links.append(Link())

    async def _newest_link(self) -> str:
        async with self.world.identity.database.identity_session() as session:
            row = (
                await session.execute(
                    text(
                        "select id, payload from mails where account_id = :id and template = 'reset_password' order by created_at desc"
                        " limit 1"
                    ),
                    {"id": self.account},
                )
            ).one()
            payload = await session.cipher.open("mails.payload", row.id, row.payload)
        return str(payload).split("#reset_password=")[1].split('"')[0]

    @precondition(lambda self: bool(self.links))
    @rule(pick=picks, new=numbers)
    def reset_password(self, pick: int, new: int) -> None:
        at = pick % len(self.links)
        got = self.world.run(
            accounts.reset_password(self.world.identity, self.links[at], PASSWORDS[new], self.where)
        )
        if self.model.reset(self.model.links[at], new):
            assert got is None
        else:
            assert got.status == 422

    @precondition(lambda self: bool(self.good))
    @rule(pick=picks)
    def add_totp(self, pick: int) -> None:
        session, caller = self.somebody(pick)
        begun = self.world.run(factors.start_totp(self.world.identity, caller))
        if not self.model.add_totp(session, len(self.codes)):
            assert begun.status == 409
            return
        self.secret = begun.secret
        self.codes += self.world.run(
            factors.confirm_totp(self.world.identity, caller, self.code(self.model.step), self.where)
        )

    @precondition(lambda self: bool(self.good))
    @rule(pick=picks)
    def remove_totp(self, pick: int) -> None:
        _, caller = self.somebody(pick)
        self.world.run(factors.remove_totp(self.world.identity, caller, self.where))
        self.model.remove_totp()

    # --- what others do, and time ---

    @rule(tenant=tenants, role=st.sampled_from(ROLES))
    def change_role(self, tenant: int, role: str) -> None:
        self._set_member(tenant, role, None)
        self.model.members[tenant].role = role

    @rule(tenant=tenants, active=st.booleans())
    def disable_or_enable_member(self, tenant: int, active: bool) -> None:
        self._set_member(tenant, None, "active" if active else "disabled")
        self.model.members[tenant].active = active

    def _set_member(self, tenant: int, role: str | None, state: str | None) -> None:
        async def change() -> None:
            context = TenantContext(self.world.tenants[tenant].info.id, "user:owner")
            async with self.world.identity.database.tenant_session(context) as session:
                role_id = None if role is None else (await members.role_by_key(session, role))["id"]
                await members.set_member(session, self.members[tenant], role_id=role_id, state=state)

        assert self.world.run(change()) is None
        self.model.members[tenant].rights += 1

    @rule(tenant=tenants, active=st.booleans())
    def suspend_or_resume(self, tenant: int, active: bool) -> None:
        state = "active" if active else "suspended"
        self.world.sql(
            "update tenants set state = :state where id = :id",
            state=state,
            id=self.world.tenants[tenant].info.id,
        )
        self.model.members[tenant].tenant_active = active

    @rule(active=st.sampled_from([True, True, False]))
    def disable_or_enable_account(self, active: bool) -> None:
        state = "active" if active else "disabled"
        self.world.sql("update accounts set state = :state where id = :id", state=state, id=self.account)
        self.model.active = active

    @rule(steps=st.integers(1, 3))
    def codes_go_on(self, steps: int) -> None:
        Clock.step += steps
        self.model.step += steps

    @rule()
    def ten_seconds_pass(self) -> None:
        age = timedelta(seconds=10)
        self.world.sql(
            "update sessions set renewed_at = renewed_at - :age where account_id = :id",
            age=age,
            id=self.account,
        )
        self.world.sql(
            "update refresh_tokens set used_at = used_at - :age where session_id in (select id from sessions where account_id = :id)",
            age=age,
            id=self.account,
        )
        self.model.ten_seconds()

    @rule()
    def ten_minutes_pass_for_proofs(self) -> None:
        self.world.sql(
            "update sessions set authenticated_at = authenticated_at - interval '10 minutes' where account_id = :id",
            id=self.account,
        )
        for session in self.model.sessions:
            session.proved = False


@pytest.mark.timeout(0 if EXAMPLES > 100 else 120)
def test_access_is_what_the_model_says(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    Access.world = world
    run_state_machine_as_test(
        Access,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            database=None,
            print_blob=False,
            phases=(Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
        ),
    )
    assert world.sequences >= EXAMPLES
    assert world.answers > 0
    with capsys.disabled():
        pass
