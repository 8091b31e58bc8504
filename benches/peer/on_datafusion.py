"""DataFusion in batch (the limit: it need not do anything before all rows are there): one partition, JSON with a schema."""

import datafusion
import pyarrow as pa
from common import COLUMNS, main, write_rows
from datafusion import SessionConfig, SessionContext
from sql import query as sql

EARLIER = "arrow_cast(CAST(\"at\" AS BIGINT) - back * 60000000, 'Timestamp(Microsecond, None)')"


def run(query, directory, file):
    context = SessionContext(SessionConfig().with_target_partitions(1))
    for source, columns in COLUMNS.items():
        fields = [(column, pa.string()) for column in columns] + [("occurred_at", pa.timestamp("us"))]
        context.register_json(source, directory / f"{source}.jsonl", schema=pa.schema(fields), file_extension=".jsonl")
    rows = context.sql(sql(query, EARLIER)).to_pylist()
    write_rows(file, rows)


main(f"DataFusion {datafusion.__version__}, batch", run)
