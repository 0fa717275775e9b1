"""HTTP only: what a route takes, who may call it, what it answers."""
