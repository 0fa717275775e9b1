"""ASGI middleware of every request."""
