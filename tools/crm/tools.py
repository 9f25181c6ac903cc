"""What the model may do in the CRM. The docstrings are product text: the model reads them.

Contact and thread come from the conversation, never from an argument: a customer cannot have another's record
changed.
"""

from storage.errors import ValidationFailed
from tools.crm import service
from tools.crm.schemas import AddNoteArgs, ContactOut, CreateLeadArgs, FindContactArgs, LeadOut, NoteOut
from tools.sdk.context import ToolContext
from tools.sdk.errors import ToolError


async def find_contact(context: ToolContext, args: FindContactArgs) -> ContactOut:
    """Look up whether this customer is known, by the e-mail address or phone number that they gave."""
    try:
        async with context.session() as session:
            contact = await service.find_contact(session, args.email, args.phone)
    except ValidationFailed as error:
        raise ToolError(error.message) from error
    if contact is None:
        return ContactOut(found=False)
    return ContactOut(
        found=True,
        name=contact["name"],
        email=contact["email"],
        phone=contact["phone"],
        company=contact["company"],
    )


async def create_lead(context: ToolContext, args: CreateLeadArgs) -> LeadOut:
    """Note that the customer wants to be contacted by a colleague: an offer, a test ride, a call back,
    advice.

    Needs an e-mail address or a phone number. Ask for one if the customer gave none.
    """
    try:
        async with context.session() as session:
            contact_id = await service.contact_of_thread(
                session, context.thread_id, email=args.email, phone=args.phone, name=args.name
            )
            lead_id, stage = await service.create_lead(
                session,
                contact_id=contact_id,
                title=args.subject,
                summary=args.summary,
                thread_id=context.thread_id,
            )
    except ValidationFailed as error:
        raise ToolError(error.message) from error
    return LeadOut(ok=True, lead_id=str(lead_id), stage=stage)


async def add_note(context: ToolContext, args: AddNoteArgs) -> NoteOut:
    """Write down something about this customer for the colleagues. Works once the customer is known by e-mail
    or phone.
    """
    try:
        async with context.session() as session:
            contact_id = await service.contact_of_thread(session, context.thread_id)
            note_id = await service.add_note(session, contact_id, context.tenant.actor, args.text)
    except ValidationFailed as error:
        raise ToolError(
            "The customer is not known yet. Ask for an e-mail address or a phone number, or call a person."
        ) from error
    return NoteOut(ok=True, note_id=str(note_id))
