"""Who may do what: accounts, sessions, roles, keys; personal data sealed; a chained audit log; consent and erasure."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from storage.migrations.audit_functions import AUDIT_FUNCTIONS
from storage.rls import identity_only, open_to_identity, protect
from storage.roles import APP, IDENTITY, PLATFORM

revision = "core_0002"
down_revision = "core_0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "accounts",
        sa.Column("email", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("language", sa.Text(), server_default="en", nullable=False),
        sa.Column("state", sa.Text(), server_default="active", nullable=False),
        sa.Column("email_verified_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("password_hash", sa.Text(), nullable=True),
        sa.Column("password_changed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("security_version", sa.Integer(), server_default="1", nullable=False),
        sa.Column("totp_secret", sa.LargeBinary(), nullable=True),
        sa.Column("totp_confirmed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("totp_last_step", sa.Integer(), nullable=True),
        sa.Column("last_sign_in_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.CheckConstraint("state in ('active', 'disabled')", name=op.f("ck_accounts_state")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_accounts")),
        sa.UniqueConstraint("email", name=op.f("uq_accounts_email")),
    )
    op.create_table(
        "feature_flags",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("enabled", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("on_for", sa.ARRAY(sa.Uuid()), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("off_for", sa.ARRAY(sa.Uuid()), server_default=sa.text("'{}'"), nullable=False),
        sa.Column(
            "updated_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_feature_flags")),
    )
    op.create_table(
        "audit_head",
        sa.Column("seq", sa.Integer(), server_default="0", nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.Column("base_seq", sa.Integer(), server_default="0", nullable=False),
        sa.Column("base_hash", sa.LargeBinary(), nullable=False),
        sa.Column(
            "tenant_id",
            sa.UUID(),
            server_default=sa.text("(nullif(current_setting('app.tenant_id', true), '')::uuid)"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name=op.f("fk_audit_head_tenant_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("tenant_id", name=op.f("pk_audit_head")),
    )
    op.create_table(
        "data_keys",
        sa.Column("subject_kind", sa.Text(), nullable=False),
        sa.Column("subject_id", sa.UUID(), nullable=False),
        sa.Column("wrapped", sa.LargeBinary(), nullable=True),
        sa.Column("wrapped_by", sa.Text(), nullable=True),
        sa.Column("retired_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("destroyed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column(
            "tenant_id",
            sa.UUID(),
            server_default=sa.text("(nullif(current_setting('app.tenant_id', true), '')::uuid)"),
            nullable=False,
        ),
        sa.CheckConstraint(
            "subject_kind in ('tenant', 'index', 'thread', 'contact')", name=op.f("ck_data_keys_subject_kind")
        ),
        sa.CheckConstraint("destroyed_at is null or wrapped is null", name=op.f("ck_data_keys_destroyed")),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name=op.f("fk_data_keys_tenant_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_data_keys")),
    )
    op.create_index(
        op.f("ix_data_keys_tenant_id_wrapped_by"), "data_keys", ["tenant_id", "wrapped_by"], unique=False
    )
    op.create_index(
        "uq_data_keys_subject",
        "data_keys",
        ["tenant_id", "subject_kind", "subject_id"],
        unique=True,
        postgresql_where=sa.text("retired_at is null and destroyed_at is null"),
    )
    op.create_table(
        "idempotency_keys",
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("key_hash", sa.LargeBinary(), nullable=False),
        sa.Column("fingerprint", sa.LargeBinary(), nullable=False),
        sa.Column("state", sa.Text(), server_default="begun", nullable=False),
        sa.Column("locked_until", sa.DateTime(timezone=True), nullable=False),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column(
            "headers", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'"), nullable=False
        ),
        sa.Column("body", sa.LargeBinary(), nullable=True),
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column(
            "tenant_id",
            sa.UUID(),
            server_default=sa.text("(nullif(current_setting('app.tenant_id', true), '')::uuid)"),
            nullable=False,
        ),
        sa.CheckConstraint("state in ('begun', 'committed', 'done')", name=op.f("ck_idempotency_keys_state")),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name=op.f("fk_idempotency_keys_tenant_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_idempotency_keys")),
        sa.UniqueConstraint(
            "tenant_id", "actor", "key_hash", name=op.f("uq_idempotency_keys_tenant_id_actor_key_hash")
        ),
    )
    op.create_index(
        op.f("ix_idempotency_keys_tenant_id_created_at"),
        "idempotency_keys",
        ["tenant_id", "created_at"],
        unique=False,
    )
    op.create_table(
        "impersonations",
        sa.Column("tenant_id", sa.UUID(), nullable=False),
        sa.Column("requested_by", sa.UUID(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("permissions", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column("minutes", sa.Integer(), nullable=False),
        sa.Column("state", sa.Text(), server_default="requested", nullable=False),
        sa.Column("decided_by", sa.UUID(), nullable=True),
        sa.Column("decided_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.CheckConstraint(
            "state in ('requested', 'approved', 'refused', 'ended')", name=op.f("ck_impersonations_state")
        ),
        sa.CheckConstraint(
            "decided_by is null or decided_by <> requested_by", name=op.f("ck_impersonations_second_person")
        ),
        sa.ForeignKeyConstraint(
            ["decided_by"], ["accounts.id"], name=op.f("fk_impersonations_decided_by"), ondelete="SET NULL"
        ),
        sa.ForeignKeyConstraint(
            ["requested_by"], ["accounts.id"], name=op.f("fk_impersonations_requested_by"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name=op.f("fk_impersonations_tenant_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_impersonations")),
    )
    op.create_index(op.f("ix_impersonations_tenant_id"), "impersonations", ["tenant_id"], unique=False)
    op.create_table(
        "mails",
        sa.Column("account_id", sa.UUID(), nullable=True),
        sa.Column("template", sa.Text(), nullable=False),
        sa.Column("language", sa.Text(), nullable=False),
        sa.Column("payload", sa.LargeBinary(), nullable=True),
        sa.Column("dedupe_key", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), server_default="pending", nullable=False),
        sa.Column("tries", sa.Integer(), server_default="0", nullable=False),
        sa.Column(
            "next_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column("lease_token", sa.UUID(), nullable=True),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.Column("sent_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.CheckConstraint("state in ('pending', 'sent', 'dead')", name=op.f("ck_mails_state")),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("fk_mails_account_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_mails")),
        sa.UniqueConstraint("dedupe_key", name=op.f("uq_mails_dedupe_key")),
    )
    op.create_index(
        "ix_mails_pending", "mails", ["next_at"], unique=False, postgresql_where=sa.text("state = 'pending'")
    )
    op.create_table(
        "one_time_tokens",
        sa.Column("account_id", sa.UUID(), nullable=True),
        sa.Column("tenant_id", sa.UUID(), nullable=True),
        sa.Column("purpose", sa.Text(), nullable=False),
        sa.Column("token_hash", sa.LargeBinary(), nullable=False),
        sa.Column(
            "payload", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'"), nullable=False
        ),
        sa.Column("tries", sa.Integer(), server_default="0", nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("used_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.CheckConstraint(
            "purpose in ('verify_email', 'reset_password', 'invitation', 'second_factor', 'passkey', 'oidc', 'step_up')",
            name=op.f("ck_one_time_tokens_purpose"),
        ),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("fk_one_time_tokens_account_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name=op.f("fk_one_time_tokens_tenant_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_one_time_tokens")),
        sa.UniqueConstraint("token_hash", name=op.f("uq_one_time_tokens_token_hash")),
    )
    op.create_index(op.f("ix_one_time_tokens_account_id"), "one_time_tokens", ["account_id"], unique=False)
    op.create_index(op.f("ix_one_time_tokens_expires_at"), "one_time_tokens", ["expires_at"], unique=False)
    op.create_table(
        "passkeys",
        sa.Column("account_id", sa.UUID(), nullable=False),
        sa.Column("credential_id", sa.LargeBinary(), nullable=False),
        sa.Column("public_key", sa.LargeBinary(), nullable=False),
        sa.Column("sign_count", sa.Integer(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("fk_passkeys_account_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_passkeys")),
        sa.UniqueConstraint("credential_id", name=op.f("uq_passkeys_credential_id")),
    )
    op.create_index(op.f("ix_passkeys_account_id"), "passkeys", ["account_id"], unique=False)
    op.create_table(
        "privacy_requests",
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("contact_id", sa.UUID(), nullable=False),
        sa.Column("requested_by", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), server_default="pending", nullable=False),
        sa.Column("step", sa.Text(), nullable=True),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.Column(
            "result", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'"), nullable=False
        ),
        sa.Column("file_id", sa.UUID(), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column(
            "tenant_id",
            sa.UUID(),
            server_default=sa.text("(nullif(current_setting('app.tenant_id', true), '')::uuid)"),
            nullable=False,
        ),
        sa.CheckConstraint("kind in ('export', 'erasure')", name=op.f("ck_privacy_requests_kind")),
        sa.CheckConstraint("state in ('pending', 'done', 'failed')", name=op.f("ck_privacy_requests_state")),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name=op.f("fk_privacy_requests_tenant_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_privacy_requests")),
    )
    op.create_index(
        "ix_privacy_requests_pending",
        "privacy_requests",
        ["tenant_id", "created_at"],
        unique=False,
        postgresql_where=sa.text("state = 'pending'"),
    )
    op.create_index(
        op.f("ix_privacy_requests_tenant_id_contact_id"),
        "privacy_requests",
        ["tenant_id", "contact_id"],
        unique=False,
    )
    op.create_table(
        "recovery_codes",
        sa.Column("account_id", sa.UUID(), nullable=False),
        sa.Column("code_hash", sa.LargeBinary(), nullable=False),
        sa.Column("used_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("fk_recovery_codes_account_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_recovery_codes")),
        sa.UniqueConstraint("code_hash", name=op.f("uq_recovery_codes_code_hash")),
    )
    op.create_index(op.f("ix_recovery_codes_account_id"), "recovery_codes", ["account_id"], unique=False)
    op.create_table(
        "roles",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("permissions", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column("system", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column(
            "tenant_id",
            sa.UUID(),
            server_default=sa.text("(nullif(current_setting('app.tenant_id', true), '')::uuid)"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name=op.f("fk_roles_tenant_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_roles")),
        sa.UniqueConstraint("tenant_id", "key", name=op.f("uq_roles_tenant_id_key")),
    )
    op.create_table(
        "service_accounts",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("scopes", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column("disabled_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column(
            "tenant_id",
            sa.UUID(),
            server_default=sa.text("(nullif(current_setting('app.tenant_id', true), '')::uuid)"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name=op.f("fk_service_accounts_tenant_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_service_accounts")),
        sa.UniqueConstraint("tenant_id", "name", name=op.f("uq_service_accounts_tenant_id_name")),
    )
    op.create_table(
        "sessions",
        sa.Column("account_id", sa.UUID(), nullable=False),
        sa.Column("tenant_id", sa.UUID(), nullable=True),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("token_hash", sa.LargeBinary(), nullable=True),
        sa.Column("previous_hash", sa.LargeBinary(), nullable=True),
        sa.Column(
            "renewed_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("rights_version", sa.Integer(), server_default="1", nullable=False),
        sa.Column("security_version", sa.Integer(), nullable=False),
        sa.Column("amr", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column(
            "authenticated_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column(
            "last_seen_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("device", sa.Text(), nullable=False),
        sa.Column("place", sa.Text(), nullable=False),
        sa.Column("impersonation_id", sa.UUID(), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_reason", sa.Text(), nullable=True),
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.CheckConstraint("kind in ('browser', 'program')", name=op.f("ck_sessions_kind")),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("fk_sessions_account_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name=op.f("fk_sessions_tenant_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sessions")),
        sa.UniqueConstraint("previous_hash", name=op.f("uq_sessions_previous_hash")),
        sa.UniqueConstraint("token_hash", name=op.f("uq_sessions_token_hash")),
    )
    op.create_index(op.f("ix_sessions_account_id"), "sessions", ["account_id"], unique=False)
    op.create_index(op.f("ix_sessions_expires_at"), "sessions", ["expires_at"], unique=False)
    op.create_table(
        "sso_connections",
        sa.Column("issuer", sa.Text(), nullable=False),
        sa.Column("client_id", sa.Text(), nullable=False),
        sa.Column("client_secret", sa.LargeBinary(), nullable=False),
        sa.Column("enabled", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column(
            "tenant_id",
            sa.UUID(),
            server_default=sa.text("(nullif(current_setting('app.tenant_id', true), '')::uuid)"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name=op.f("fk_sso_connections_tenant_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_sso_connections")),
        sa.UniqueConstraint("tenant_id", "issuer", name=op.f("uq_sso_connections_tenant_id_issuer")),
    )
    op.create_table(
        "sso_identities",
        sa.Column("account_id", sa.UUID(), nullable=False),
        sa.Column("connection_id", sa.UUID(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("fk_sso_identities_account_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sso_identities")),
        sa.UniqueConstraint("connection_id", "subject", name=op.f("uq_sso_identities_connection_id_subject")),
    )
    op.create_index(op.f("ix_sso_identities_account_id"), "sso_identities", ["account_id"], unique=False)
    op.create_table(
        "api_keys",
        sa.Column("service_account_id", sa.UUID(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("prefix", sa.Text(), nullable=False),
        sa.Column("key_hash", sa.LargeBinary(), nullable=False),
        sa.Column("scopes", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column("allowed_networks", sa.ARRAY(sa.Text()), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("replaces", sa.UUID(), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column(
            "tenant_id",
            sa.UUID(),
            server_default=sa.text("(nullif(current_setting('app.tenant_id', true), '')::uuid)"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "service_account_id"],
            ["service_accounts.tenant_id", "service_accounts.id"],
            name=op.f("fk_api_keys_tenant_id_service_account_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name=op.f("fk_api_keys_tenant_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_api_keys")),
        sa.UniqueConstraint("prefix", name=op.f("uq_api_keys_prefix")),
    )
    op.create_index(
        op.f("ix_api_keys_tenant_id_service_account_id"),
        "api_keys",
        ["tenant_id", "service_account_id"],
        unique=False,
    )
    op.create_table(
        "consents",
        sa.Column("contact_id", sa.UUID(), nullable=False),
        sa.Column("purpose", sa.Text(), nullable=False),
        sa.Column("basis", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("evidence", sa.LargeBinary(), nullable=True),
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column(
            "tenant_id",
            sa.UUID(),
            server_default=sa.text("(nullif(current_setting('app.tenant_id', true), '')::uuid)"),
            nullable=False,
        ),
        sa.CheckConstraint(
            "basis in ('consent', 'contract', 'legal_obligation', 'vital_interests', 'public_task', 'legitimate_interests')",
            name=op.f("ck_consents_basis"),
        ),
        sa.CheckConstraint("state in ('granted', 'withdrawn')", name=op.f("ck_consents_state")),
        sa.ForeignKeyConstraint(
            ["tenant_id", "contact_id"],
            ["contacts.tenant_id", "contacts.id"],
            name=op.f("fk_consents_tenant_id_contact_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name=op.f("fk_consents_tenant_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_consents")),
    )
    op.create_index(
        op.f("ix_consents_tenant_id_contact_id_purpose_created_at"),
        "consents",
        ["tenant_id", "contact_id", "purpose", "created_at"],
        unique=False,
    )
    op.create_table(
        "members",
        sa.Column("account_id", sa.UUID(), nullable=False),
        sa.Column("role_id", sa.UUID(), nullable=False),
        sa.Column("email", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), server_default="active", nullable=False),
        sa.Column("rights_version", sa.Integer(), server_default="1", nullable=False),
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column(
            "tenant_id",
            sa.UUID(),
            server_default=sa.text("(nullif(current_setting('app.tenant_id', true), '')::uuid)"),
            nullable=False,
        ),
        sa.CheckConstraint("state in ('active', 'disabled')", name=op.f("ck_members_state")),
        sa.ForeignKeyConstraint(
            ["tenant_id", "role_id"],
            ["roles.tenant_id", "roles.id"],
            name=op.f("fk_members_tenant_id_role_id"),
            ondelete="NO ACTION",
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name=op.f("fk_members_tenant_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_members")),
        sa.UniqueConstraint("tenant_id", "account_id", name=op.f("uq_members_tenant_id_account_id")),
    )
    op.create_index(op.f("ix_members_account_id"), "members", ["account_id"], unique=False)
    op.create_table(
        "refresh_tokens",
        sa.Column("session_id", sa.UUID(), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("token_hash", sa.LargeBinary(), nullable=False),
        sa.Column("used_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(
            ["session_id"], ["sessions.id"], name=op.f("fk_refresh_tokens_session_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_refresh_tokens")),
        sa.UniqueConstraint("session_id", "generation", name=op.f("uq_refresh_tokens_session_id_generation")),
        sa.UniqueConstraint("token_hash", name=op.f("uq_refresh_tokens_token_hash")),
    )

    # The owner is under the policies too, and here is no tenant: for the length of this transaction it is not.
    for table in ("users", "tenants", "audit_log"):
        op.execute(f"alter table {table} no force row level security")
    _move_users()
    _to_bytes()
    _chain_audit_log()
    op.execute(
        "insert into tenants (id, slug, name) values ('00000000-0000-0000-0000-000000000000', 'platform', 'Platform') "
        "on conflict do nothing"
    )
    for table in ("tenants", "audit_log"):
        op.execute(f"alter table {table} force row level security")
    _walls()


def _move_users() -> None:
    """Each user becomes an account with the same password, and a member of the tenant with the role `staff`. Where one
    e-mail stood in several tenants the oldest user's password counts; what the roles may do is filled in after the migration.
    """
    op.execute("""
    insert into accounts (id, email, name, password_hash, password_changed_at, email_verified_at, created_at)
    select distinct on (email) id, email, name, password_hash, created_at, created_at, created_at from users order by email, created_at
    """)
    op.execute("""
    insert into roles (tenant_id, id, key, name, permissions, system)
    select distinct tenant_id, gen_random_uuid(), 'staff', 'Staff', '{}'::text[], true from (select distinct tenant_id from users) u
    """)
    op.execute("""
    insert into members (tenant_id, id, account_id, role_id, email, name)
    select u.tenant_id, u.id, a.id, r.id, u.email, u.name from users u join accounts a on a.email = u.email
      join roles r on r.tenant_id = u.tenant_id and r.key = 'staff'
    """)
    op.drop_table("users")


# What becomes sealed. A first byte 0 says "still in clear": storage.migrate seals those rows after the migrations, with the
# keys that SQL does not have, and may be stopped and started again while it does.
_SEALED = (
    ("attachments", "filename", "convert_to(filename, 'UTF8')", True),
    ("contacts", "name", "convert_to(name, 'UTF8')", True),
    ("contacts", "email", "convert_to(email, 'UTF8')", True),
    ("contacts", "phone", "convert_to(phone, 'UTF8')", True),
    ("contacts", "company", "convert_to(company, 'UTF8')", True),
    ("inbox_messages", "text", "convert_to(text, 'UTF8')", True),
    ("leads", "title", "convert_to(title, 'UTF8')", True),
    ("leads", "summary", "convert_to(summary, 'UTF8')", True),
    ("notes", "text", "convert_to(text, 'UTF8')", False),
    ("pii_vault", "value", "convert_to(value, 'UTF8')", False),
    ("turn_steps", "request", "convert_to(request::text, 'UTF8')", False),
    ("turn_steps", "response", "convert_to(response::text, 'UTF8')", False),
)


def _to_bytes() -> None:
    for name in ("uq_contacts_tenant_id_email", "uq_contacts_tenant_id_phone"):
        op.drop_constraint(name, "contacts", type_="unique")
    for table, column, clear, nullable in _SEALED:
        op.execute(f"alter table {table} alter column {column} drop default")
        op.execute(f"alter table {table} alter column {column} type bytea using '\\x00'::bytea || {clear}")
        if nullable:
            op.execute(f"alter table {table} alter column {column} drop not null")
    op.drop_column("attachments", "path")
    op.add_column("channels", sa.Column("secrets", sa.LargeBinary(), nullable=True))
    op.add_column("contacts", sa.Column("email_bi", sa.LargeBinary(), nullable=True))
    op.add_column("contacts", sa.Column("phone_bi", sa.LargeBinary(), nullable=True))
    op.add_column("contacts", sa.Column("legal_hold", sa.Text(), nullable=True))
    op.add_column("contacts", sa.Column("erased_at", sa.DateTime(timezone=True), nullable=True))
    for column in ("email_bi", "phone_bi"):
        op.create_unique_constraint(
            op.f(f"uq_contacts_tenant_id_{column}"), "contacts", ["tenant_id", column]
        )
    op.drop_constraint("uq_pii_vault_tenant_id_thread_id_kind_norm", "pii_vault", type_="unique")
    op.alter_column("pii_vault", "norm", new_column_name="norm_bi")
    op.execute("alter table pii_vault alter column norm_bi type bytea using convert_to(norm_bi, 'UTF8')")
    op.create_unique_constraint(
        op.f("uq_pii_vault_tenant_id_thread_id_kind_norm_bi"),
        "pii_vault",
        ["tenant_id", "thread_id", "kind", "norm_bi"],
    )
    op.add_column("tenants", sa.Column("state", sa.Text(), server_default="active", nullable=False))
    op.add_column("tenants", sa.Column("state_reason", sa.Text(), nullable=True))
    op.add_column(
        "tenants",
        sa.Column("cors_origins", sa.ARRAY(sa.Text()), server_default=sa.text("'{}'"), nullable=False),
    )
    op.add_column("tenants", sa.Column("version", sa.Integer(), server_default="1", nullable=False))
    op.create_check_constraint(
        op.f("ck_tenants_state"), "tenants", "state in ('pending', 'active', 'suspended')"
    )
    op.add_column("threads", sa.Column("erased_at", sa.DateTime(timezone=True), nullable=True))


def _chain_audit_log() -> None:
    """Entries from before get their place and their hash in the order of their time."""
    op.add_column("audit_log", sa.Column("seq", sa.Integer(), nullable=True))
    op.add_column("audit_log", sa.Column("reason", sa.Text(), nullable=True))
    op.add_column("audit_log", sa.Column("prev", sa.LargeBinary(), nullable=True))
    op.add_column("audit_log", sa.Column("hash", sa.LargeBinary(), nullable=True))
    for statement in AUDIT_FUNCTIONS:
        op.execute(statement)
    op.execute("""
    do $$ declare t uuid; r record; h bytea; n int; begin
      for t in select id from tenants loop
        h := '\\x00'; n := 0;
        perform set_config('app.tenant_id', t::text, true);
        for r in select id from audit_log where tenant_id = t order by created_at, id loop
          n := n + 1;
          update audit_log set seq = n, prev = h where tenant_id = t and id = r.id;
          update audit_log a set hash = audit_hash(a) where tenant_id = t and id = r.id returning hash into h;
        end loop;
        insert into audit_head (tenant_id, seq, hash, base_seq, base_hash) values (t, n, h, 0, '\\x00');
      end loop;
      perform set_config('app.tenant_id', '', true);
    end $$
    """)
    for column in ("seq", "prev", "hash"):
        op.alter_column("audit_log", column, nullable=False)
    op.create_unique_constraint(op.f("uq_audit_log_tenant_id_seq"), "audit_log", ["tenant_id", "seq"])


def _walls() -> None:
    for table in (
        "api_keys",
        "consents",
        "idempotency_keys",
        "members",
        "privacy_requests",
        "roles",
        "service_accounts",
        "sso_connections",
    ):
        protect(table)
    protect("data_keys", app="select, insert, update")
    protect("audit_head", app="select")
    op.execute(f"revoke insert on audit_log from {APP}")
    op.execute(f"revoke insert, update, delete on audit_log, audit_head from {PLATFORM}")
    for table in (
        "accounts",
        "recovery_codes",
        "passkeys",
        "sessions",
        "refresh_tokens",
        "one_time_tokens",
        "mails",
        "impersonations",
        "sso_identities",
    ):
        identity_only(table)
    op.execute(f"grant select, insert, update, delete on feature_flags to {IDENTITY}")
    for table, rights in (
        ("tenants", "select, insert, update"),
        ("members", "select, insert, update"),
        ("roles", "select, insert"),
        ("api_keys", "select, update"),
        ("service_accounts", "select"),
        ("sso_connections", "select"),
    ):
        open_to_identity(table, rights)
    # Under the policy of every tenant table, not past it: the session says whose keys.
    op.execute(f"grant select, insert, update on data_keys to {IDENTITY}")
    for function, roles in (
        ("audit_append(text, text, text, text, jsonb, text, text, uuid)", f"{APP}, {IDENTITY}, {PLATFORM}"),
        ("audit_prune(uuid, timestamptz)", PLATFORM),
        ("forget_turns(uuid[])", APP),
        ("prune_turns(uuid, timestamptz)", PLATFORM),
    ):
        op.execute(f"revoke all on function {function} from public")
        op.execute(f"grant execute on function {function} to {roles}")


def downgrade() -> None:
    raise RuntimeError("sealed data cannot be turned back into text by SQL: restore the backup from before")
