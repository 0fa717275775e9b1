"""The social-posts API."""

__version__ = "0.1.0"  # The only place that states it.
