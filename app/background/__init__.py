"""Background work: periodic tasks and mail delivery."""
