"""What people may ask of us: their data, and its end (GDPR Art. 15, 17, 20), and what we owe unasked (Art. 5(1)(e), 30). All of
it follows from the column registry (storage/registry.py); what is stored outside our tables is named in ``stores.py``.
"""
