"""Processes and sockets that serve the application."""
