"""Faults and overload: real server processes, a real PostgreSQL of their own, real signals."""
