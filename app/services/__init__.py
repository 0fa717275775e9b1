"""What the product does: functions that hold their SQL; no FastAPI in here."""
