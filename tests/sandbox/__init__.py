"""Fakes of the wire: small apps that speak a provider's protocol on loopback, scripted by tests."""
