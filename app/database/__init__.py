"""Connections to PostgreSQL: engines, transactions, batch queues and timeouts."""
