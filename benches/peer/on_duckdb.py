"""DuckDB in batch (the limit: it need not do anything before all rows are there): one thread, JSON with a schema."""

import duckdb
from common import COLUMNS, main
from sql import query as sql

EARLIER = "\"at\" - to_minutes(back)"


def run(query, directory, file):
    database = duckdb.connect(config={"threads": 1})
    for source, columns in COLUMNS.items():
        types = ", ".join(f"{column}: 'VARCHAR'" for column in columns) + ", occurred_at: 'TIMESTAMP'"
        database.sql(f"CREATE VIEW {source} AS FROM read_json('{directory}/{source}.jsonl', format = 'newline_delimited', "
                     f"columns = {{{types}}})")
    database.sql(f"COPY ({sql(query, EARLIER)}) TO '{file}' (FORMAT json)")
    database.close()


main(f"DuckDB {duckdb.__version__}, batch", run)
