"""Business logic: functions with their SQL, independent of FastAPI."""
