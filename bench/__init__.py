"""How fast this application is, beside others that do the same: `python -m bench --help`."""
