"""How results are shown: a table, one HTML page per durability class, JSON, the tables of
docs/performance.md."""
