"""Tables of results that one command reproduces, with the published numbers.

`table.py` lists the tables, `run_table.py` produces one, and `page.py` writes docs/results.md.
"""
