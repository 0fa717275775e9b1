"""Webhooks: events of the log are queued for each webhook, and delivered by HTTP."""
