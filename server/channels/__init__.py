"""Doors through which customers write: one folder a kind. Each checks who is knocking, finds the tenant,
parses, and sends.
"""
