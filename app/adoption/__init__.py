"""Taking over a database that the tutorial or a descendant of it made, in place.

`look` only looks: what is there, what will be done, and why it cannot be, if so. `adopt` first gives the tables, in
one transaction, the exact shape of the tutorial's last step, says so to Alembic, and then migrates. Nothing that we do
not know is dropped: what is in the way of a name of ours is renamed to `former_…`.
"""

from app.adoption.plan import Plan
from app.adoption.run import CannotAdopt, adopt, look

__all__ = ["CannotAdopt", "Plan", "adopt", "look"]
