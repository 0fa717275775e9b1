"""Taking over a database that the tutorial or a descendant of it made, in place.

`look` only reads: what is there, what will be done, or why it cannot be. `adopt` gives the tables the exact shape of
the tutorial's last step and then migrates, all in one transaction. Nothing that we do not know is dropped: what is in
the way of a name of ours is renamed to `former_…`, and values that cannot be kept are copied to a table `former_…`.
"""

from app.adoption.choices import Choices, MalformedChoice
from app.adoption.plan import Plan
from app.adoption.run import CannotAdopt, adopt, look

__all__ = ["CannotAdopt", "Choices", "MalformedChoice", "Plan", "adopt", "look"]
