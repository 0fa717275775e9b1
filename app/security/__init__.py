"""Tokens, passwords, limits on guessing, and the log of what happened to accounts."""
