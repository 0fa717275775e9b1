"""What operators see: logs, metrics, and what a request asked of the database."""
