"""Pictures: where their files are stored, and the limited process that decodes uploads."""
