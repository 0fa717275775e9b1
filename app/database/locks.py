"""Advisory locks."""

# Held by whoever migrates. Any number that no other program takes a lock on in this database: "posts" in ASCII.
MIGRATION_LOCK = 0x706F737473
