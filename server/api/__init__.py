"""The REST API, but for what tool domains bring along (tools/<domain>/api.py)."""

from server.api.admin import AdminController, ImpersonationController
from server.api.audit import AuditController
from server.api.auth import CONTROLLERS as AUTH
from server.api.docs import DocsController
from server.api.health import HealthController
from server.api.inbox import DeadLetterController, MessageController, ThreadController
from server.api.keys import ServiceAccountController
from server.api.members import MemberController, RoleController
from server.api.privacy import CONTROLLERS as PRIVACY
from server.api.sso import ConnectionController, SsoController
from server.api.tenants import TenantController

CONTROLLERS: tuple[type, ...] = (
    HealthController,
    *AUTH,
    ThreadController,
    MessageController,
    DeadLetterController,
    AuditController,
    AdminController,
    ImpersonationController,
    TenantController,
    MemberController,
    RoleController,
    ServiceAccountController,
    ConnectionController,
    SsoController,
    *PRIVACY,
    DocsController,
)
