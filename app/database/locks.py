"""Advisory locks."""

# Held while migrating. Any number that no other program locks in this database will do: "posts" in ASCII.
MIGRATION_LOCK = 0x706F737473
