"""Advisory locks."""

# Held while migrating. Any number that no other program locks in this database will do: "posts" in ASCII.
MIGRATION_LOCK = 0x706F737473
# Held by a batch of `services/deletion.py` and the pause before it: "delete" in ASCII.
DELETION_LOCK = 0x64656C657465
