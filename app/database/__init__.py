"""The ways to PostgreSQL."""
