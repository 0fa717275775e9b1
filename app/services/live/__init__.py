"""What live streams show: the state of what they watch, and the messages of new events."""
