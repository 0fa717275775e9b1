"""The social-posts API."""
