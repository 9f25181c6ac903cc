"""What signing in should do, in plain Python: one person, two businesses, no database. The state machine compares with it.

Times: ``recent`` is what happened since ten seconds passed for the last time; ``step`` is the number of the code that the app shows.
"""

from dataclasses import dataclass, field

from storage.permissions import SECOND_FACTOR_ROLES, SYSTEM_ROLES

PERMISSIONS = {role.key: sorted(role.permissions) for role in SYSTEM_ROLES}
FACTORS = {"otp", "rec"}
CHALLENGE_TRIES = 5
Answer = tuple[int, str | None, list[str], bool]
"""Status, why nothing is open, permissions, and whether dangerous acts are open."""
REFUSED: Answer = (401, None, [], False)


@dataclass
class Cookie:
    session: "Session"


@dataclass
class Token:
    """An access token: it speaks for the business in which it was issued."""

    session: "Session"
    tenant: int | None
    security: int


@dataclass
class Refresh:
    session: "Session"
    used: bool = False
    recent: bool = False


@dataclass
class Session:
    kind: str
    tenant: int | None
    amr: set[str]
    security: int
    rights: int
    alive: bool = True
    proved: bool = True
    current: Cookie | None = None
    previous: Cookie | None = None
    family: list[Refresh] = field(default_factory=list)


@dataclass
class Challenge:
    tenant: int | None
    kind: str
    open: bool = True
    tries: int = 0


@dataclass
class Link:
    open: bool = True


@dataclass
class Member:
    role: str = "staff"
    active: bool = True
    rights: int = 1
    tenant_active: bool = True


class Model:
    """The person's account and everything that was ever handed out for it."""

    def __init__(self) -> None:
        self.password = 0
        self.security = 1
        self.active = True
        self.totp = False
        self.step = 0
        self.last_step = -1
        self.recovery: set[int] = set()
        self.members = [Member(), Member()]
        self.sessions: list[Session] = []
        self.challenges: list[Challenge] = []
        self.links: list[Link] = []
        self.reuses = 0

    # --- what a request gets ---

    def answer(self, shown: Cookie | Token) -> Answer:
        """What the guard decides; showing a cookie under new rights renews it, which is ``renewal_due``."""
        session = shown.session
        if not self.stands(session):
            return REFUSED
        if isinstance(shown, Cookie):
            if shown is not session.current and shown is not session.previous:
                return REFUSED
        elif shown.tenant != session.tenant or shown.security != self.security:
            return REFUSED
        reason = self._reason(session)
        fresh = session.proved and (bool(session.amr & FACTORS) or not self.totp)
        if reason is not None:
            return (403, reason, [], fresh)
        assert session.tenant is not None
        return (200, None, PERMISSIONS[self.members[session.tenant].role], fresh)

    def renewal_due(self, shown: Cookie) -> bool:
        session = shown.session
        if session.tenant is None or shown is not session.current or not self.stands(session):
            return False
        return session.rights != self.members[session.tenant].rights

    def stands(self, session: Session) -> bool:
        return session.alive and session.security == self.security and self.active

    def _reason(self, session: Session) -> str | None:
        if session.tenant is None:
            return "no_tenant"
        member = self.members[session.tenant]
        if not member.tenant_active:
            return "suspended"
        if not member.active:
            return "not_member"
        if member.role in SECOND_FACTOR_ROLES and not session.amr & FACTORS:
            return "second_factor"
        return None

    # --- signing in ---

    def first_step(self, password: int, tenant: int | None, kind: str) -> Session | Challenge | None:
        if password != self.password or not self.active:
            return None
        if self.totp:
            self.challenges.append(Challenge(tenant, kind))
            return self.challenges[-1]
        return self._begin({"pwd"}, tenant, kind)

    def second_step(self, challenge: Challenge, *, step: int | None, recovery: int | None) -> Session | None:
        if not challenge.open or challenge.tries >= CHALLENGE_TRIES:
            return None
        challenge.tries += 1
        proved = self._would_prove(step, recovery)
        if proved is None:
            return None
        if not self.active:  # the proof was shown, and is used up, before the account is looked at
            self._use(step, recovery)
            return None
        session = self._begin({"pwd", proved}, challenge.tenant, challenge.kind)
        if session is not None:  # else nothing at all has happened, but for the try
            self._use(step, recovery)
            challenge.open = False
        return session

    def _would_prove(self, step: int | None, recovery: int | None) -> str | None:
        if step is not None:
            good = self.totp and abs(step - self.step) <= 1 and step > self.last_step
            return "otp" if good else None
        return "rec" if recovery in self.recovery else None

    def _use(self, step: int | None, recovery: int | None) -> None:
        if step is not None:
            self.last_step = step
        elif recovery is not None:
            self.recovery.discard(recovery)

    def _begin(self, amr: set[str], tenant: int | None, kind: str) -> Session | None:
        usable = [number for number in (0, 1) if self.members[number].active]
        if tenant is not None:
            if tenant not in usable:
                return None
            chosen: int | None = tenant
        else:
            open_ones = [number for number in usable if self.members[number].tenant_active]
            chosen = next(iter(open_ones or usable), None)
        session = Session(kind, chosen, amr, self.security, self._rights(chosen))
        if kind == "browser":
            session.current = Cookie(session)
        else:
            session.family = [Refresh(session)]
        self.sessions.append(session)
        return session

    def _rights(self, tenant: int | None) -> int:
        return 1 if tenant is None else self.members[tenant].rights

    # --- what happens to sessions ---

    def refresh(self, shown: Refresh) -> int:
        """200, 401 or 409. After 200 the family has one more."""
        session = shown.session
        if not shown.used:
            shown.used = shown.recent = True
            session.family.append(Refresh(session))
            return 200 if self.stands(session) else 401
        if shown.recent and shown is session.family[-2]:
            return 409
        self.reuses += session.alive
        session.alive = False
        return 401

    def renew(self, session: Session) -> None:
        session.rights = self._rights(session.tenant)
        if session.kind == "browser":
            session.previous, session.current = session.current, Cookie(session)

    def token(self, session: Session) -> Token:
        return Token(session, session.tenant, session.security)

    def switch(self, session: Session, tenant: int) -> bool:
        if not self.members[tenant].active:
            return False
        session.tenant = tenant
        self.renew(session)
        return True

    def step_up(self, session: Session, password: int | None, step: int | None) -> bool:
        method: str | None
        if password is not None:
            method = "pwd" if not self.totp and password == self.password else None
        else:
            method = self._would_prove(step, None)
            if method is not None:
                self._use(step, None)
        if method is None:
            return False
        session.amr.add(method)
        session.proved = True
        self.renew(session)
        return True

    def end(self, *, but: Session | None = None) -> None:
        for session in self.sessions:
            session.alive = session.alive and session is but

    # --- the account ---

    def change_password(self, session: Session, current: int, new: int) -> bool:
        if current != self.password:
            return False
        self.password = new
        self.end(but=session)
        self._drop()
        return True

    def reset(self, link: Link, new: int) -> bool:
        if not link.open:
            return False
        self.password = new
        self.security += 1
        self.end()
        self._drop()
        return True

    def _drop(self) -> None:
        for link in self.links:
            link.open = False
        for challenge in self.challenges:
            challenge.open = False

    def add_totp(self, session: Session, codes: int) -> bool:
        if self.totp:
            return False
        self.totp, self.last_step = True, self.step
        self.recovery = set(range(codes, codes + 10))
        session.amr.add("otp")
        session.proved = True
        return True

    def remove_totp(self) -> None:
        self.totp, self.last_step = False, -1
        self.recovery = set()

    def ten_seconds(self) -> None:
        for session in self.sessions:
            session.previous = None
            for one in session.family:
                one.recent = False
