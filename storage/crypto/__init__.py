"""Encryption at rest: a master key wraps the keys of tenants, these wrap the keys of threads and contacts, and those
seal columns and files. To destroy a subject's key is to erase what was sealed under it, in backups too.
"""
