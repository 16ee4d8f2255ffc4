"""L5: one file per request family; table.py maps every RequestCode."""
