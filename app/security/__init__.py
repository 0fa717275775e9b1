"""Tokens, passwords, brute-force protection, encryption and the audit log."""
