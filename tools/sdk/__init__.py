"""The kit for tool domains: manifest, registry, context, journaling runner. README.md shows how to add a
domain.
"""
