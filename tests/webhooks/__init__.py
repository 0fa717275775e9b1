"""Webhooks: the queue, delivery, and addresses that are refused."""
