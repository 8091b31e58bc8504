"""What an independent parser of Redshift's SQL makes of statements: their kinds, tables and columns, as JSON.

A statement it does not understand it passes on as a "command", which is an error here."""

import json
import sys

import sqlglot
from sqlglot import exp

found = []
for statement in sqlglot.parse(sys.argv[1], dialect="redshift"):
    if statement is None:
        continue
    assert statement.find(exp.Command) is None, statement.sql()
    columns = [
        [column.name, column.kind.sql(dialect="redshift").lower()] for column in statement.find_all(exp.ColumnDef)
    ]
    sortkey = statement.find(exp.SortKeyProperty)
    distkey = statement.find(exp.DistKeyProperty)
    found.append({
        "kind": type(statement).__name__,
        "table": statement.find(exp.Table).sql(dialect="redshift"),
        "columns": columns,
        "distkey": distkey.this.name if distkey else None,
        "sortkey": [key.name for key in sortkey.this] if sortkey else [],
    })
json.dump(found, sys.stdout)
