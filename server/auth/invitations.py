"""Inviting people into a business. What the link does is in server/auth/accounts.py (``accept_invitation``)."""



MAX_PENDING = 200
AGAIN_SECONDS = 60
"""So many a business and so often an address: our mails are not for filling other people's mailboxes."""
