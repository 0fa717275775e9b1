"""What is done beside the requests."""
