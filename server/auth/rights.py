"""The one rule about giving and taking rights: nobody gives or takes what they do not have, nobody changes their own, only
owners touch owners, and a platform operator inside somebody else's business touches nobody's.
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from server.auth.caller import Caller
from storage.errors import Conflict, Forbidden, ValidationFailed
from storage.permissions import OWNER, PERMISSIONS

# What no program may do, whoever makes its account: it could make itself or others more than it is, or what is gone stays gone.
FOR_PEOPLE = frozenset(
    permission
    for permission in PERMISSIONS
    if permission.partition(":")[0] in ("members", "roles", "keys")
    or permission in ("tenant:write", "privacy:erase")
)


FEDERATED = "fed"
"""In ``amr`` (not of RFC 8176): a business's identity provider said who it is."""


def require_own(caller: Caller) -> None:
    """Only a person who belongs to the business itself.

    Raises:
        Forbidden: an operator who acts inside it, or a program.
    """
    if caller.standing is None:
        raise Forbidden("This is for people, not for API keys.")
    if caller.standing.impersonation_id is not None:
        raise Forbidden("Operators may not change who may do what in a business.", reason="impersonation")


def require_own_proof(caller: Caller) -> None:
    """Only a person who signed in with their account's own password. A business's provider speaks for that business: whoever runs
    it could else, as anybody who is linked with it, act in other businesses or change the person's account.

    Raises:
        Forbidden: single sign-on opened the session.
    """
    if caller.standing is not None and FEDERATED in caller.standing.amr:
        raise Forbidden("Sign in with your own password for this.", reason="federated")


def require_fresh(caller: Caller) -> None:
    """As ``step_up`` in a route's ``opt``, where only some of its requests are dangerous.

    Raises:
        Forbidden: the person has to prove first that it is them.
    """
    if not caller.fresh(datetime.now(UTC)):
        raise Forbidden("Prove first that it is you: POST /api/v1/auth/step-up.", reason="step_up")


def known(permissions: Iterable[str]) -> list[str]:
    """The permissions in order, each once.

    Raises:
        ValidationFailed: there is no such permission (a business cannot have the platform's either).
    """
    wanted = sorted(set(permissions))
    if unknown := [name for name in wanted if name not in PERMISSIONS]:
        raise ValidationFailed("There is no such permission.", unknown=unknown)
    return wanted


def require_held(caller: Caller, permissions: Iterable[str]) -> None:
    """Refuse to give or take rights that the caller does not have.

    Raises:
        Forbidden: ``details.missing_scopes`` says which.
    """
    if missing := set(permissions) - caller.context.scopes:
        raise Forbidden("You can only give or take rights that you have.", missing_scopes=sorted(missing))


def require_may_give(caller: Caller, role: Mapping[str, Any]) -> None:
    """Refuse a role that the caller may not give to, or take from, anybody.

    Args:
        role: a row of storage.repositories.members.

    Raises:
        Forbidden: it is more than the caller has, or it is the owners'.
    """
    require_own(caller)
    assert caller.standing is not None
    if role["key"] == OWNER and caller.standing.role != OWNER:
        raise Forbidden("Only an owner can make or change owners.")
    require_held(caller, role["permissions"])


def require_may_change_member(
    caller: Caller, member: Mapping[str, Any], role: Mapping[str, Any], new_role: Mapping[str, Any] | None
) -> None:
    """Refuse a change of a member's role or state.

    Args:
        member: whom it concerns.
        role: what they have.
        new_role: what they shall have; None where it stays.

    Raises:
        Forbidden: it is the caller themselves, or somebody who has, or shall have, what the caller has not.
    """
    require_own(caller)
    if member["account_id"] == caller.account_id:
        raise Forbidden("Nobody changes their own role or state. Ask a colleague.")
    require_may_give(caller, role)
    if new_role is not None:
        require_may_give(caller, new_role)


def require_may_change_role(
    caller: Caller, role: Mapping[str, Any], permissions: Iterable[str] | None
) -> None:
    """Refuse a change of a role itself.

    Args:
        permissions: what it shall allow; None where that stays.

    Raises:
        Conflict: it is one of those that every business has.
        Forbidden: before or after it allows what the caller may not, or it is the caller's own.
    """
    require_own(caller)
    assert caller.standing is not None
    if role["system"]:
        raise Conflict("Every business has this role, and nobody can change it. Make one of your own.")
    require_held(caller, role["permissions"])
    if permissions is not None:
        if role["key"] == caller.standing.role:
            raise Forbidden("Nobody changes their own role. Ask a colleague.")
        require_held(caller, permissions)


def program_scopes(scopes: Iterable[str]) -> list[str]:
    """Scopes for a service account, in order, each once.

    Raises:
        ValidationFailed: one is unknown, or for people only.
    """
    wanted = known(scopes)
    if refused := sorted(FOR_PEOPLE & set(wanted)):
        raise ValidationFailed("These permissions are for people, not for programs.", refused=refused)
    return wanted
