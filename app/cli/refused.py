"""The error of commands that cannot be carried out."""


class Refused(Exception):
    """The command cannot be carried out. The message is one line."""
