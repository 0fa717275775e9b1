"""The building blocks of routes."""
