"""Pydantic models between requests and rows, in and out."""
