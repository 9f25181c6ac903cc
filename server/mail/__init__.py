"""Mails to people who have an account: texts in templates, and the ways out."""
