"""The rules of the CRM: who a contact is, where a lead begins. Plain values in, plain values out; no HTTP, no
model.
"""

from typing import Any
from uuid import UUID

import phonenumbers

from storage.errors import NotFound, ValidationFailed
from storage.repositories import threads
from storage.sql import Session
from tools.crm import repository

DEFAULT_PIPELINE = ("Sales", ["New", "Contacted", "Offer", "Won", "Lost"])
DEFAULT_REGION = "AT"


def normalise_email(value: str | None) -> str | None:
    """Lower case, without blanks.

    Raises:
        ValidationFailed: it is no e-mail address.
    """
    if value is None or not value.strip():
        return None
    email = value.strip().lower()
    local, _, domain = email.rpartition("@")
    if not local or "." not in domain or any(character.isspace() for character in email):
        raise ValidationFailed("This is no e-mail address.", field="email")
    return email


def normalise_phone(value: str | None, region: str = DEFAULT_REGION) -> str | None:
    """E.164, such as +43512000000.

    Raises:
        ValidationFailed: it is no phone number.
    """
    if value is None or not value.strip():
        return None
    try:
        number = phonenumbers.parse(value, region)
    except phonenumbers.NumberParseException as error:
        raise ValidationFailed("This is no phone number.", field="phone") from error
    if not phonenumbers.is_possible_number(number):
        raise ValidationFailed("This is no phone number.", field="phone")
    return str(phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164))


async def find_contact(session: Session, email: str | None, phone: str | None) -> dict[str, Any] | None:
    return await repository.contact_by_reach(session, normalise_email(email), normalise_phone(phone))


async def find_or_create_contact(session: Session, **fields: str | None) -> UUID:
    """The contact with this e-mail or phone, filled up with what is new; made where there is none.

    Raises:
        ValidationFailed: neither e-mail nor phone is given, or one of them is none.
    """
    fields = {
        **fields,
        "email": normalise_email(fields.get("email")),
        "phone": normalise_phone(fields.get("phone")),
    }
    if not fields["email"] and not fields["phone"]:
        raise ValidationFailed("An e-mail address or a phone number is needed.", field="email")
    for _ in range(2):  # the second round finds the one that a concurrent turn has just made
        found = await repository.contact_by_reach(session, fields["email"], fields["phone"])
        if found is not None:
            await repository.fill_contact(session, found["id"], fields)
            return UUID(str(found["id"]))
        created = await repository.add_contact(session, fields)
        if created is not None:
            return created
    raise ValidationFailed("E-mail and phone belong to two different contacts.", field="email")


async def contact_of_thread(session: Session, thread_id: UUID, **fields: str | None) -> UUID:
    """The thread's contact: who it is known to be, else who is found or made by e-mail or phone; the thread
    remembers it.

    Raises:
        ValidationFailed: it is nobody yet, and there is nothing to reach them by.
    """
    known = await repository.thread_contact(session, thread_id)
    if fields.get("email") or fields.get("phone"):
        contact_id = await find_or_create_contact(session, **fields)
    elif known is not None:
        return known
    else:
        raise ValidationFailed("An e-mail address or a phone number is needed.", field="email")
    if known is None:
        await threads.set_contact(session, thread_id, contact_id)
    return contact_id


async def create_lead(
    session: Session, *, contact_id: UUID, title: str, summary: str | None, thread_id: UUID | None = None
) -> tuple[UUID, str]:
    """A lead in the first stage of the first pipeline: (id, stage's name).

    Raises:
        NotFound: no such contact.
        ValidationFailed: the title is empty.
    """
    if not title.strip():
        raise ValidationFailed("A lead needs a title.", field="title")
    lead: dict[str, Any] = {
        "contact_id": contact_id,
        "thread_id": thread_id,
        "title": title.strip(),
        "summary": summary,
    }
    added = await repository.add_lead(session, **lead)
    if added is None:
        await _require_contact(session, contact_id)
        await repository.add_pipeline(session, *DEFAULT_PIPELINE)
        added = await repository.add_lead(session, **lead)
    if added is None:
        raise ValidationFailed("The first pipeline has no stages.", field="stage")
    return added


async def add_note(session: Session, contact_id: UUID, author: str, body: str) -> UUID:
    """A remark on a contact.

    Raises:
        NotFound: no such contact.
        ValidationFailed: the text is empty.
    """
    if not body.strip():
        raise ValidationFailed("A note needs a text.", field="text")
    await _require_contact(session, contact_id)
    return await repository.add_note(session, contact_id, author, body.strip())


async def _require_contact(session: Session, contact_id: UUID) -> None:
    """Nothing new is written about somebody who was erased.

    Raises:
        NotFound: no such contact, or not any more.
    """
    found = await repository.contact_by_id(session, contact_id)
    if found is None or found["erased_at"] is not None:
        raise NotFound("No such contact.")
