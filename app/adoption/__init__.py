"""Adoption: convert a database of the tutorial or of a descendant in place.

`look` only reads and returns a plan. `adopt` gives the tables the exact schema of the tutorial's last step and then
migrates, all in one transaction. It drops nothing unknown: objects whose name is needed are renamed to `former_…`, and
values that cannot be kept are copied to a table `former_…`.
"""

from app.adoption.choices import Choices, MalformedChoice
from app.adoption.plan import Plan
from app.adoption.run import CannotAdopt, adopt, look

__all__ = ["CannotAdopt", "Choices", "MalformedChoice", "Plan", "adopt", "look"]
