"""E-mail: outbox, texts, delivery and transports."""
