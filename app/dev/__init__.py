"""For development: the embedded server and demo data."""
