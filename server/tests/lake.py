"""Rows of a lake as an independent reader (pyarrow) sees them, as one JSON object.

    python lake.py DIR|s3://bucket/prefix KEY

Prints {"rows": n, "keys": {key: times seen}, "partitions": {"year=…/…": n}, "columns": {name: type}}.
"""

import collections
import json
import os
import sys

import pyarrow.dataset as dataset
import pyarrow.fs as fs


def main(where, key):
    files, base = None, where
    if where.startswith("s3://"):
        endpoint = os.environ["AWS_ENDPOINT_URL"]
        files = fs.S3FileSystem(endpoint_override=endpoint, region=os.environ["AWS_REGION"])
        base = where.removeprefix("s3://")
    table = dataset.dataset(base, format="parquet", partitioning="hive", filesystem=files).to_table()
    partitions = collections.Counter(
        f"year={row['year']}/month={row['month']:02}/day={row['day']:02}"
        for row in table.select(["year", "month", "day"]).to_pylist()
    )
    print(json.dumps({
        "rows": table.num_rows,
        "keys": collections.Counter(table.column(key).to_pylist()),
        "partitions": partitions,
        "columns": {field.name: str(field.type) for field in table.schema},
    }))


main(*sys.argv[1:])
