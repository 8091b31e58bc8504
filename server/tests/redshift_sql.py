"""Parses the statements in a file, one JSON text per line, as Redshift's; prints those that it does not know.

LOCK, VACUUM and CREATE EXTERNAL SCHEMA are opaque to this parser, whatever follows.
"""

import json
import logging
import sys

import sqlglot
from sqlglot import exp

OPAQUE = ("LOCK ", "VACUUM ", "CREATE EXTERNAL SCHEMA ")

logging.disable(logging.CRITICAL)
unknown = []
for line in open(sys.argv[1]):
    sql = json.loads(line)
    try:
        opaque = isinstance(sqlglot.parse_one(sql, dialect="redshift"), exp.Command)
    except sqlglot.errors.SqlglotError as e:
        unknown.append(f"{sql}: {e}")
        continue
    if opaque and not sql.startswith(OPAQUE):
        unknown.append(sql)
print(json.dumps(unknown))
