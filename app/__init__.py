"""The social-posts API."""

__version__ = "0.1.0"  # As in pyproject.toml.
