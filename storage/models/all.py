"""Imports every module of models, so that the metadata is complete. For migrations and catalogue tests only."""

from storage.base import Base
from storage.models import conversation, core, crm, knowledge, turns

__all__ = ["Base", "conversation", "core", "crm", "knowledge", "turns"]
