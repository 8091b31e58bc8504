"""Prints the rows of a query of an SQLite database as JSON: sqlite.py FILE QUERY."""

import json
import sqlite3
import sys

with sqlite3.connect(f"file:{sys.argv[1]}?mode=ro", uri=True, timeout=60) as at:
    json.dump(at.execute(sys.argv[2]).fetchall(), sys.stdout)
