"""The CRM domain."""

from pathlib import Path

from tools.crm import api, tools
from tools.sdk.plugin import ToolPlugin

plugin = ToolPlugin(
    folder=Path(__file__).parent,
    functions=(tools.find_contact, tools.create_lead, tools.add_note),
    controllers=(api.ContactController, api.LeadController, api.PipelineController),
)
