"""What routes are built from."""
