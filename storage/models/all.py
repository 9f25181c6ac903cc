"""Imports every module of models, so that the metadata is complete. For migrations, the column registry and catalogue tests."""

from storage.base import Base
from storage.models import conversation, core, crm, identity, keys, knowledge, privacy, turns

__all__ = ["Base", "conversation", "core", "crm", "identity", "keys", "knowledge", "privacy", "turns"]
