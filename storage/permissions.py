"""What can be allowed, and the roles that every tenant has. A tenant's own roles are rows that combine the same permissions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

# Permission → what it opens, in words for the page where an owner makes a role.
PERMISSIONS: Mapping[str, str] = {
    "inbox:read": "Read conversations.",
    "inbox:write": "Take conversations over, replay what was given up.",
    "crm:read": "Read contacts, leads and notes.",
    "crm:write": "Change contacts, leads and notes.",
    "knowledge:read": "Read documents and search in them.",
    "knowledge:write": "Add and remove documents.",
    "prompts:read": "Read prompts and the conversations they are tried on.",
    "prompts:write": "Change prompts.",
    "members:read": "See who works here.",
    "members:write": "Invite people, change their roles, send them away.",
    "roles:read": "See roles and what they allow.",
    "roles:write": "Make and change the business's own roles.",
    "keys:read": "See service accounts and their API keys.",
    "keys:write": "Make, rotate and revoke API keys.",
    "tenant:read": "See the settings of the business.",
    "tenant:write": "Change the settings of the business, its single sign-on and its retention.",
    "audit:read": "Search the audit log.",
    "audit:export": "Take the audit log out.",
    "privacy:read": "See consents, requests of persons, and the record of processing.",
    "privacy:write": "Record consents and legal holds.",
    "privacy:export": "Export all data of one person.",
    "privacy:erase": "Erase all data of one person.",
}
# Of the platform's operators only; no role of a business may hold one.
PLATFORM_PERMISSIONS: Mapping[str, str] = {
    "platform:read": "See tenants, usage, health and dead letters, without content.",
    "platform:write": "Suspend and resume tenants, set feature flags.",
    "platform:impersonate": "Ask for, or agree to, acting inside a tenant.",
}
_WORK = ("inbox:read", "inbox:write", "crm:read", "crm:write", "knowledge:read")
_READ = tuple(name for name in PERMISSIONS if name.endswith(":read"))


@dataclass(frozen=True)
class SystemRole:
    """A role that every tenant has and none can change. ``needs_second_factor``: without one it opens nothing but the way to
    set one up.
    """

    key: str
    name: str
    permissions: Sequence[str]
    needs_second_factor: bool = False


SYSTEM_ROLES: Sequence[SystemRole] = (
    SystemRole("owner", "Owner", tuple(PERMISSIONS), needs_second_factor=True),
    SystemRole(
        "admin",
        "Administrator",
        tuple(name for name in PERMISSIONS if name != "privacy:erase"),
        needs_second_factor=True,
    ),
    SystemRole("staff", "Staff", (*_WORK, "knowledge:write", "privacy:read", "privacy:write")),
    SystemRole(
        "prompt_engineer",
        "Prompt engineer",
        ("prompts:read", "prompts:write", "knowledge:read", "knowledge:write"),
    ),
    SystemRole(
        "read_only", "Read only", tuple(name for name in _READ if name not in ("audit:read", "keys:read"))
    ),
)
PLATFORM_ROLES: Sequence[SystemRole] = (
    SystemRole("operator", "Operator", tuple(PLATFORM_PERMISSIONS), needs_second_factor=True),
)
OWNER = "owner"
SECOND_FACTOR_ROLES = frozenset(
    role.key for role in (*SYSTEM_ROLES, *PLATFORM_ROLES) if role.needs_second_factor
)
