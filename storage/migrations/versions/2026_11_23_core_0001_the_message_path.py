"""The message path: tenants, conversations and their queue, turns, leads, knowledge."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from storage.rls import protect

revision = "core_0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "tenants",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("slug", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("languages", sa.ARRAY(sa.Text()), server_default=sa.text("'{en,de}'"), nullable=False),
        sa.Column("time_zone", sa.Text(), server_default="UTC", nullable=False),
        sa.Column(
            "settings",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'"),
            nullable=False,
        ),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tenants")),
        sa.UniqueConstraint("slug", name=op.f("uq_tenants_slug")),
    )
    op.create_table(
        "audit_log",
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("object_type", sa.Text(), nullable=False),
        sa.Column("object_id", sa.Text(), nullable=False),
        sa.Column(
            "detail", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'"), nullable=False
        ),
        sa.Column("request_id", sa.Text(), nullable=True),
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
            ["tenant_id"], ["tenants.id"], name=op.f("fk_audit_log_tenant_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_audit_log")),
    )
    op.create_index(
        op.f("ix_audit_log_tenant_id_object_type_object_id_created_at"),
        "audit_log",
        ["tenant_id", "object_type", "object_id", "created_at"],
        unique=False,
    )
    op.create_table(
        "channels",
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("public_key", sa.Text(), nullable=False),
        sa.Column("allowed_origins", sa.ARRAY(sa.Text()), server_default=sa.text("'{}'"), nullable=False),
        sa.Column(
            "settings",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'"),
            nullable=False,
        ),
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
            ["tenant_id"], ["tenants.id"], name=op.f("fk_channels_tenant_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_channels")),
        sa.UniqueConstraint("public_key", name=op.f("uq_channels_public_key")),
    )
    op.create_table(
        "contacts",
        sa.Column("name", sa.Text(), nullable=True),
        sa.Column("email", sa.Text(), nullable=True),
        sa.Column("phone", sa.Text(), nullable=True),
        sa.Column("company", sa.Text(), nullable=True),
        sa.Column("language", sa.Text(), nullable=True),
        sa.Column(
            "updated_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
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
            ["tenant_id"], ["tenants.id"], name=op.f("fk_contacts_tenant_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_contacts")),
        sa.UniqueConstraint("tenant_id", "email", name=op.f("uq_contacts_tenant_id_email")),
        sa.UniqueConstraint("tenant_id", "phone", name=op.f("uq_contacts_tenant_id_phone")),
    )
    op.create_table(
        "knowledge_sources",
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
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
            ["tenant_id"], ["tenants.id"], name=op.f("fk_knowledge_sources_tenant_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_knowledge_sources")),
        sa.UniqueConstraint(
            "tenant_id", "kind", "name", name=op.f("uq_knowledge_sources_tenant_id_kind_name")
        ),
    )
    op.create_table(
        "pipelines",
        sa.Column("name", sa.Text(), nullable=False),
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
            ["tenant_id"], ["tenants.id"], name=op.f("fk_pipelines_tenant_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_pipelines")),
        sa.UniqueConstraint("tenant_id", "name", name=op.f("uq_pipelines_tenant_id_name")),
    )
    op.create_table(
        "usage_events",
        sa.Column("turn_id", sa.UUID(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("quantity", sa.Integer(), nullable=False),
        sa.Column("model", sa.Text(), nullable=True),
        sa.Column("tokens_in", sa.Integer(), server_default="0", nullable=False),
        sa.Column("tokens_out", sa.Integer(), server_default="0", nullable=False),
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
            ["tenant_id"], ["tenants.id"], name=op.f("fk_usage_events_tenant_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_usage_events")),
        sa.UniqueConstraint(
            "tenant_id", "turn_id", "kind", name=op.f("uq_usage_events_tenant_id_turn_id_kind")
        ),
    )
    op.create_table(
        "users",
        sa.Column("email", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("password_hash", sa.Text(), nullable=False),
        sa.Column("scopes", sa.ARRAY(sa.Text()), server_default=sa.text("'{}'"), nullable=False),
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
            ["tenant_id"], ["tenants.id"], name=op.f("fk_users_tenant_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_users")),
        sa.UniqueConstraint("tenant_id", "email", name=op.f("uq_users_tenant_id_email")),
    )
    op.create_table(
        "documents",
        sa.Column("source_id", sa.UUID(), nullable=False),
        sa.Column("filename", sa.Text(), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("content_type", sa.Text(), nullable=False),
        sa.Column("language", sa.Text(), nullable=True),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("parser", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("embedding_model", sa.Text(), nullable=True),
        sa.Column(
            "updated_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
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
            "state in ('queued', 'extracted', 'embedded', 'ready', 'needs_ocr', 'empty', 'encrypted', 'unsupported', 'too_large', 'parse_failed', 'parse_crashed', 'index_failed')",
            name=op.f("ck_documents_state"),
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "source_id"],
            ["knowledge_sources.tenant_id", "knowledge_sources.id"],
            name=op.f("fk_documents_tenant_id_source_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name=op.f("fk_documents_tenant_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_documents")),
        sa.UniqueConstraint("tenant_id", "sha256", name=op.f("uq_documents_tenant_id_sha256")),
    )
    op.create_index(
        "ix_documents_working",
        "documents",
        ["tenant_id", "state"],
        unique=False,
        postgresql_where=sa.text("state in ('queued', 'extracted', 'embedded')"),
    )
    op.create_table(
        "notes",
        sa.Column("contact_id", sa.UUID(), nullable=False),
        sa.Column("author", sa.Text(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
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
            ["tenant_id", "contact_id"],
            ["contacts.tenant_id", "contacts.id"],
            name=op.f("fk_notes_tenant_id_contact_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name=op.f("fk_notes_tenant_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_notes")),
    )
    op.create_index(
        op.f("ix_notes_tenant_id_contact_id_created_at"),
        "notes",
        ["tenant_id", "contact_id", "created_at"],
        unique=False,
    )
    op.create_table(
        "stages",
        sa.Column("pipeline_id", sa.UUID(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
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
            ["tenant_id", "pipeline_id"],
            ["pipelines.tenant_id", "pipelines.id"],
            name=op.f("fk_stages_tenant_id_pipeline_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name=op.f("fk_stages_tenant_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_stages")),
        sa.UniqueConstraint(
            "tenant_id", "pipeline_id", "position", name=op.f("uq_stages_tenant_id_pipeline_id_position")
        ),
    )
    op.create_table(
        "threads",
        sa.Column("channel_id", sa.UUID(), nullable=False),
        sa.Column("contact_id", sa.UUID(), nullable=True),
        sa.Column("external_id", sa.Text(), nullable=False),
        sa.Column("epoch", sa.Text(), nullable=False),
        sa.Column("handler", sa.Text(), server_default="agent", nullable=False),
        sa.Column("needs_human_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("language", sa.Text(), nullable=True),
        sa.Column("agent", sa.Text(), nullable=True),
        sa.Column("last_seq", sa.Integer(), server_default="0", nullable=False),
        sa.Column("fence", sa.UUID(), nullable=True),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "updated_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
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
        sa.CheckConstraint("handler in ('agent', 'human')", name=op.f("ck_threads_handler")),
        sa.ForeignKeyConstraint(
            ["tenant_id", "channel_id"],
            ["channels.tenant_id", "channels.id"],
            name=op.f("fk_threads_tenant_id_channel_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "contact_id"],
            ["contacts.tenant_id", "contacts.id"],
            name=op.f("fk_threads_tenant_id_contact_id"),
            ondelete="NO ACTION",
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name=op.f("fk_threads_tenant_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_threads")),
        sa.UniqueConstraint(
            "tenant_id", "channel_id", "external_id", name=op.f("uq_threads_tenant_id_channel_id_external_id")
        ),
    )
    op.create_index(
        op.f("ix_threads_tenant_id_updated_at"), "threads", ["tenant_id", "updated_at"], unique=False
    )
    op.create_table(
        "chunks",
        sa.Column("document_id", sa.UUID(), nullable=False),
        sa.Column("ordinal", sa.Integer(), nullable=False),
        sa.Column("page", sa.Integer(), nullable=False),
        sa.Column("char_start", sa.Integer(), nullable=False),
        sa.Column("char_end", sa.Integer(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("heading_path", sa.Text(), server_default="", nullable=False),
        sa.Column("tokens", sa.Integer(), nullable=False),
        sa.Column("language", sa.Text(), nullable=False),
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
            ["tenant_id", "document_id"],
            ["documents.tenant_id", "documents.id"],
            name=op.f("fk_chunks_tenant_id_document_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name=op.f("fk_chunks_tenant_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_chunks")),
        sa.UniqueConstraint(
            "tenant_id", "document_id", "ordinal", name=op.f("uq_chunks_tenant_id_document_id_ordinal")
        ),
    )
    op.create_table(
        "document_pages",
        sa.Column("document_id", sa.UUID(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column(
            "tenant_id",
            sa.UUID(),
            server_default=sa.text("(nullif(current_setting('app.tenant_id', true), '')::uuid)"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "document_id"],
            ["documents.tenant_id", "documents.id"],
            name=op.f("fk_document_pages_tenant_id_document_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name=op.f("fk_document_pages_tenant_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("tenant_id", "document_id", "number", name=op.f("pk_document_pages")),
    )
    op.create_table(
        "inbox_messages",
        sa.Column("thread_id", sa.UUID(), nullable=False),
        sa.Column("channel_id", sa.UUID(), nullable=False),
        sa.Column("external_id", sa.Text(), nullable=False),
        sa.Column("direction", sa.Text(), nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("turn_id", sa.UUID(), nullable=True),
        sa.Column("in_reply_to", sa.UUID(), nullable=True),
        sa.Column("agent", sa.Text(), nullable=True),
        sa.Column("language", sa.Text(), nullable=True),
        sa.Column(
            "citations",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'[]'"),
            nullable=False,
        ),
        sa.Column("reduced", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("failures", sa.Integer(), server_default="0", nullable=False),
        sa.Column(
            "available_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.Column("answered_at", sa.DateTime(timezone=True), nullable=True),
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
            "(direction = 'in' and state in ('pending', 'answered', 'dead', 'human') and in_reply_to is null) or (direction = 'out' and state = 'reply' and in_reply_to is not null)",
            name=op.f("ck_inbox_messages_state"),
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "channel_id"],
            ["channels.tenant_id", "channels.id"],
            name=op.f("fk_inbox_messages_tenant_id_channel_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "thread_id"],
            ["threads.tenant_id", "threads.id"],
            name=op.f("fk_inbox_messages_tenant_id_thread_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name=op.f("fk_inbox_messages_tenant_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_inbox_messages")),
        sa.UniqueConstraint(
            "tenant_id",
            "channel_id",
            "external_id",
            name=op.f("uq_inbox_messages_tenant_id_channel_id_external_id"),
        ),
        sa.UniqueConstraint("tenant_id", "in_reply_to", name=op.f("uq_inbox_messages_tenant_id_in_reply_to")),
        sa.UniqueConstraint(
            "tenant_id", "thread_id", "seq", name=op.f("uq_inbox_messages_tenant_id_thread_id_seq")
        ),
    )
    op.create_index(
        "ix_inbox_messages_pending",
        "inbox_messages",
        ["tenant_id", "thread_id", "seq"],
        unique=False,
        postgresql_where=sa.text("state = 'pending'"),
    )
    op.create_table(
        "leads",
        sa.Column("contact_id", sa.UUID(), nullable=False),
        sa.Column("stage_id", sa.UUID(), nullable=False),
        sa.Column("thread_id", sa.UUID(), nullable=True),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("summary", sa.Text(), nullable=True),
        sa.Column(
            "updated_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
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
            ["tenant_id", "contact_id"],
            ["contacts.tenant_id", "contacts.id"],
            name=op.f("fk_leads_tenant_id_contact_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "stage_id"],
            ["stages.tenant_id", "stages.id"],
            name=op.f("fk_leads_tenant_id_stage_id"),
            ondelete="NO ACTION",
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "thread_id"],
            ["threads.tenant_id", "threads.id"],
            name=op.f("fk_leads_tenant_id_thread_id"),
            ondelete="NO ACTION",
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name=op.f("fk_leads_tenant_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_leads")),
    )
    op.create_index(op.f("ix_leads_tenant_id_created_at"), "leads", ["tenant_id", "created_at"], unique=False)
    op.create_table(
        "pii_vault",
        sa.Column("thread_id", sa.UUID(), nullable=False),
        sa.Column("placeholder", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.Column("norm", sa.Text(), nullable=False),
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
            ["tenant_id", "thread_id"],
            ["threads.tenant_id", "threads.id"],
            name=op.f("fk_pii_vault_tenant_id_thread_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name=op.f("fk_pii_vault_tenant_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_pii_vault")),
        sa.UniqueConstraint(
            "tenant_id", "thread_id", "kind", "norm", name=op.f("uq_pii_vault_tenant_id_thread_id_kind_norm")
        ),
        sa.UniqueConstraint(
            "tenant_id", "thread_id", "placeholder", name=op.f("uq_pii_vault_tenant_id_thread_id_placeholder")
        ),
    )
    op.create_table(
        "turn_steps",
        sa.Column("turn_id", sa.UUID(), nullable=False),
        sa.Column("ordinal", sa.Integer(), nullable=False),
        sa.Column("thread_id", sa.UUID(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("request_hash", sa.Text(), nullable=False),
        sa.Column("request", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("response", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("model", sa.Text(), nullable=True),
        sa.Column("tokens_in", sa.Integer(), server_default="0", nullable=False),
        sa.Column("tokens_out", sa.Integer(), server_default="0", nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column(
            "ended_at",
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
            "kind in ('model', 'tool', 'clock', 'id', 'note')", name=op.f("ck_turn_steps_kind")
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "thread_id"],
            ["threads.tenant_id", "threads.id"],
            name=op.f("fk_turn_steps_tenant_id_thread_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name=op.f("fk_turn_steps_tenant_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("tenant_id", "turn_id", "ordinal", name=op.f("pk_turn_steps")),
    )
    op.create_index(
        op.f("ix_turn_steps_tenant_id_thread_id"), "turn_steps", ["tenant_id", "thread_id"], unique=False
    )
    op.create_table(
        "attachments",
        sa.Column("message_id", sa.UUID(), nullable=False),
        sa.Column("filename", sa.Text(), nullable=False),
        sa.Column("content_type", sa.Text(), nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
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
            ["tenant_id", "message_id"],
            ["inbox_messages.tenant_id", "inbox_messages.id"],
            name=op.f("fk_attachments_tenant_id_message_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name=op.f("fk_attachments_tenant_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_attachments")),
    )
    op.create_table(
        "embeddings",
        sa.Column("chunk_id", sa.UUID(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("vector", sa.LargeBinary(), nullable=False),
        sa.Column(
            "tenant_id",
            sa.UUID(),
            server_default=sa.text("(nullif(current_setting('app.tenant_id', true), '')::uuid)"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "chunk_id"],
            ["chunks.tenant_id", "chunks.id"],
            name=op.f("fk_embeddings_tenant_id_chunk_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name=op.f("fk_embeddings_tenant_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("tenant_id", "chunk_id", "model", name=op.f("pk_embeddings")),
    )
    op.create_table(
        "kb_lengths",
        sa.Column("config", sa.Text(), nullable=False),
        sa.Column("chunk_id", sa.UUID(), nullable=False),
        sa.Column("length", sa.Integer(), nullable=False),
        sa.Column(
            "tenant_id",
            sa.UUID(),
            server_default=sa.text("(nullif(current_setting('app.tenant_id', true), '')::uuid)"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "chunk_id"],
            ["chunks.tenant_id", "chunks.id"],
            name=op.f("fk_kb_lengths_tenant_id_chunk_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name=op.f("fk_kb_lengths_tenant_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("tenant_id", "config", "chunk_id", name=op.f("pk_kb_lengths")),
    )
    op.create_table(
        "kb_terms",
        sa.Column("config", sa.Text(), nullable=False),
        sa.Column("term", sa.Text(), nullable=False),
        sa.Column("chunk_id", sa.UUID(), nullable=False),
        sa.Column("tf", sa.Integer(), nullable=False),
        sa.Column(
            "tenant_id",
            sa.UUID(),
            server_default=sa.text("(nullif(current_setting('app.tenant_id', true), '')::uuid)"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "chunk_id"],
            ["chunks.tenant_id", "chunks.id"],
            name=op.f("fk_kb_terms_tenant_id_chunk_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name=op.f("fk_kb_terms_tenant_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("tenant_id", "config", "term", "chunk_id", name=op.f("pk_kb_terms")),
    )
    op.create_index(
        op.f("ix_kb_terms_tenant_id_chunk_id"), "kb_terms", ["tenant_id", "chunk_id"], unique=False
    )
    op.create_table(
        "outbox",
        sa.Column("thread_id", sa.UUID(), nullable=False),
        sa.Column("channel_id", sa.UUID(), nullable=False),
        sa.Column("message_id", sa.UUID(), nullable=False),
        sa.Column("in_reply_to", sa.UUID(), nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("dedupe_key", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), server_default="pending", nullable=False),
        sa.Column("tries", sa.Integer(), server_default="0", nullable=False),
        sa.Column(
            "next_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column("lease_token", sa.UUID(), nullable=True),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("provider_id", sa.Text(), nullable=True),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.Column("sent_at", sa.DateTime(timezone=True), nullable=True),
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
        sa.CheckConstraint("state in ('pending', 'sent', 'dead')", name=op.f("ck_outbox_state")),
        sa.ForeignKeyConstraint(
            ["tenant_id", "channel_id"],
            ["channels.tenant_id", "channels.id"],
            name=op.f("fk_outbox_tenant_id_channel_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "message_id"],
            ["inbox_messages.tenant_id", "inbox_messages.id"],
            name=op.f("fk_outbox_tenant_id_message_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "thread_id"],
            ["threads.tenant_id", "threads.id"],
            name=op.f("fk_outbox_tenant_id_thread_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name=op.f("fk_outbox_tenant_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_outbox")),
        sa.UniqueConstraint(
            "tenant_id", "channel_id", "dedupe_key", name=op.f("uq_outbox_tenant_id_channel_id_dedupe_key")
        ),
        sa.UniqueConstraint("tenant_id", "in_reply_to", name=op.f("uq_outbox_tenant_id_in_reply_to")),
    )
    op.create_index(
        "ix_outbox_pending",
        "outbox",
        ["tenant_id", "thread_id", "seq"],
        unique=False,
        postgresql_where=sa.text("state = 'pending'"),
    )
    protect("tenants", tenant_column="id", app="select")
    protect("audit_log", app="select, insert")  # append-only for the application
    protect("turn_steps", app="select, insert")  # what was journalled stays as it was
    for table in (
        "channels",
        "contacts",
        "knowledge_sources",
        "pipelines",
        "usage_events",
        "users",
        "documents",
        "notes",
        "stages",
        "threads",
        "chunks",
        "document_pages",
        "inbox_messages",
        "leads",
        "pii_vault",
        "attachments",
        "embeddings",
        "kb_lengths",
        "kb_terms",
        "outbox",
    ):
        protect(table)
    op.execute("grant select on alembic_version to secretary_platform, secretary_app")


def downgrade() -> None:
    op.drop_index("ix_outbox_pending", table_name="outbox", postgresql_where=sa.text("state = 'pending'"))
    op.drop_table("outbox")
    op.drop_index(op.f("ix_kb_terms_tenant_id_chunk_id"), table_name="kb_terms")
    op.drop_table("kb_terms")
    op.drop_table("kb_lengths")
    op.drop_table("embeddings")
    op.drop_table("attachments")
    op.drop_index(op.f("ix_turn_steps_tenant_id_thread_id"), table_name="turn_steps")
    op.drop_table("turn_steps")
    op.drop_table("pii_vault")
    op.drop_index(op.f("ix_leads_tenant_id_created_at"), table_name="leads")
    op.drop_table("leads")
    op.drop_index(
        "ix_inbox_messages_pending",
        table_name="inbox_messages",
        postgresql_where=sa.text("state = 'pending'"),
    )
    op.drop_table("inbox_messages")
    op.drop_table("document_pages")
    op.drop_table("chunks")
    op.drop_index(op.f("ix_threads_tenant_id_updated_at"), table_name="threads")
    op.drop_table("threads")
    op.drop_table("stages")
    op.drop_index(op.f("ix_notes_tenant_id_contact_id_created_at"), table_name="notes")
    op.drop_table("notes")
    op.drop_index(
        "ix_documents_working",
        table_name="documents",
        postgresql_where=sa.text("state in ('queued', 'extracted', 'embedded')"),
    )
    op.drop_table("documents")
    op.drop_table("users")
    op.drop_table("usage_events")
    op.drop_table("pipelines")
    op.drop_table("knowledge_sources")
    op.drop_table("contacts")
    op.drop_table("channels")
    op.drop_index(op.f("ix_audit_log_tenant_id_object_type_object_id_created_at"), table_name="audit_log")
    op.drop_table("audit_log")
    op.drop_table("tenants")
