"""Shapes of the CRM: what the model fills in and sees, what the API takes and returns."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

import msgspec
from msgspec import Meta
from pydantic import Field

from tools.sdk.fields import PII, PLAIN, ToolArgs, ToolOut

Short = Annotated[str, Meta(max_length=320)]  # the longest e-mail address
Long = Annotated[str, Meta(max_length=20_000)]


class FindContactArgs(ToolArgs):
    email: Annotated[str | None, PII("EMAIL"), Field(description="The customer's e-mail address.")] = None
    phone: Annotated[str | None, PII("PHONE"), Field(description="The customer's phone number.")] = None


class CreateLeadArgs(ToolArgs):
    subject: Annotated[
        str,
        PII("TEXT"),
        Field(description="What the customer wants, in a few words.", min_length=3, max_length=200),
    ]
    email: Annotated[
        str | None, PII("EMAIL"), Field(description="E-mail address to reach the customer at.")
    ] = None
    phone: Annotated[
        str | None, PII("PHONE"), Field(description="Phone number to reach the customer at.")
    ] = None
    name: Annotated[str | None, PII("PERSON"), Field(description="The customer's name, if it was given.")] = (
        None
    )
    summary: Annotated[
        str | None,
        PII("TEXT"),
        Field(description="What a colleague should know before calling.", max_length=2000),
    ] = None


class AddNoteArgs(ToolArgs):
    text: Annotated[
        str,
        PII("TEXT"),
        Field(description="What should be remembered about this customer.", min_length=3, max_length=2000),
    ]


class ContactOut(ToolOut):
    found: bool
    name: Annotated[str | None, PII("PERSON")] = None
    email: Annotated[str | None, PII("EMAIL")] = None
    phone: Annotated[str | None, PII("PHONE")] = None
    company: Annotated[str | None, PLAIN] = None


class LeadOut(ToolOut):
    ok: bool
    lead_id: Annotated[str, PLAIN]
    stage: Annotated[str, PLAIN]


class NoteOut(ToolOut):
    ok: bool
    note_id: Annotated[str, PLAIN]


class ContactIn(msgspec.Struct, forbid_unknown_fields=True):
    """A contact; at least one of e-mail and phone."""

    email: Short | None = None
    phone: Short | None = None
    name: Short | None = None
    company: Short | None = None


class Contact(msgspec.Struct):
    id: UUID
    name: str | None
    email: str | None
    phone: str | None
    company: str | None
    language: str | None
    created_at: datetime


class LeadIn(msgspec.Struct, forbid_unknown_fields=True):
    contact_id: UUID
    title: Short
    summary: Long | None = None


class Lead(msgspec.Struct):
    """``title`` is null where the person was erased."""

    id: UUID
    contact_id: UUID
    stage_id: UUID
    stage: str
    thread_id: UUID | None
    title: str | None
    summary: str | None
    created_at: datetime


class NoteIn(msgspec.Struct, forbid_unknown_fields=True):
    text: Long


class Note(msgspec.Struct):
    id: UUID
    contact_id: UUID
    author: str
    text: str
    created_at: datetime


class Stage(msgspec.Struct):
    id: UUID
    name: str
    position: int


class Pipeline(msgspec.Struct):
    id: UUID
    name: str
    stages: list[Stage]
