"""The Glue catalog as an independent client (boto3) sees it, and the lake as somebody who knows only the catalog.

    python catalog.py database NAME            creates a database
    python catalog.py show DATABASE TABLE      prints columns, keys, parameters and partitions
    python catalog.py files s3://BUCKET/PREFIX prints how many files are there
    python catalog.py read DATABASE TABLE      reads the files that the catalog leads to, with pyarrow and with duckdb, and
                                               prints {"pyarrow": [row, …], "duckdb": [row, …]}, each row {column: text}
"""

import io
import itertools
import json
import os
import re
import sys
import tempfile

import boto3
import duckdb
import pyarrow as pa
import pyarrow.parquet as parquet

WHERE = {"endpoint_url": os.environ["AWS_ENDPOINT_URL"], "region_name": os.environ["AWS_REGION"]}
TYPES = {
    "boolean": pa.bool_(), "int": pa.int32(), "bigint": pa.int64(), "double": pa.float64(), "string": pa.string(),
    "timestamp": pa.timestamp("us"),
}
glue = boto3.client("glue", **WHERE)
s3 = boto3.client("s3", **WHERE)


def database(name):
    glue.create_database(DatabaseInput={"Name": name})


def tables(database, name):
    table = glue.get_table(DatabaseName=database, Name=name)["Table"]
    pages = glue.get_paginator("get_partitions").paginate(DatabaseName=database, TableName=name)
    return table, [partition for page in pages for partition in page["Partitions"]]


def show(database, name):
    table, partitions = tables(database, name)
    storage = table["StorageDescriptor"]
    return {
        "type": table["TableType"],
        "columns": [[column["Name"], column["Type"]] for column in storage["Columns"]],
        "keys": [[column["Name"], column["Type"]] for column in table["PartitionKeys"]],
        "location": storage["Location"],
        "formats": [storage["InputFormat"], storage["OutputFormat"], storage["SerdeInfo"]["SerializationLibrary"]],
        "parameters": table["Parameters"],
        "partitions": sorted(
            [partition["Values"], partition["StorageDescriptor"]["Location"]] for partition in partitions
        ),
    }


def read(database, name):
    """One row per row of a file, by the columns of the catalog."""
    table, partitions = tables(database, name)
    keys = [key["Name"] for key in table["PartitionKeys"]]
    columns = {column["Name"]: column["Type"] for column in table["StorageDescriptor"]["Columns"]}
    places = [(dict(zip(keys, of["Values"])), of["StorageDescriptor"]["Location"]) for of in partitions]
    if table["Parameters"].get("projection.enabled") == "true":
        places = projected(table["Parameters"], keys)
    rows, selects = [], []
    with tempfile.TemporaryDirectory() as folder:
        for number, (values, location) in enumerate(places):
            for key, content in files(location):
                rows += [{**row, **values} for row in by_pyarrow(content, columns)]
                path = f"{folder}/{number}-{key.rsplit('/')[-1]}"
                with open(path, "wb") as file:
                    file.write(content)
                selects.append((path, values))
        return {"pyarrow": ordered(rows), "duckdb": ordered(by_duckdb(selects, columns))}


def projected(parameters, keys):
    """Every place that Athena would look at."""
    ranges = []
    for key in keys:
        assert parameters[f"projection.{key}.type"] == "integer"
        first, last = parameters[f"projection.{key}.range"].split(",")
        digits = int(parameters[f"projection.{key}.digits"])
        ranges.append([f"{value:0{digits}}" for value in range(int(first), int(last) + 1)])
    for values in itertools.product(*ranges):
        values = dict(zip(keys, values))
        place = re.sub(r"\$\{(\w+)\}", lambda found: values[found[1]], parameters["storage.location.template"])
        yield values, place


listed = {}


def files(location):
    bucket, prefix = location.removeprefix("s3://").split("/", 1)
    if bucket not in listed:
        pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket)
        listed[bucket] = [found["Key"] for page in pages for found in page.get("Contents", [])]
    for key in listed[bucket]:
        if key.startswith(prefix):
            yield key, s3.get_object(Bucket=bucket, Key=key)["Body"].read()


def count(location):
    return sum(1 for _ in files(location))


def by_pyarrow(content, columns):
    table = parquet.read_table(io.BytesIO(content))
    found = {name.lower(): table.column(name) for name in table.column_names}
    missing = pa.nulls(table.num_rows)
    as_catalog = {name: found.get(name, missing).cast(TYPES[of]) for name, of in columns.items()}
    return pa.table(as_catalog).to_pylist()


def by_duckdb(selects, columns):
    """As one query over all files, older and newer."""
    if not selects:
        return []
    connection = duckdb.connect()
    partition_of = {path: values for path, values in selects}
    wanted = ", ".join(f"CAST({name} AS {of}) AS {name}" for name, of in columns.items())
    files = ", ".join(f"'{path}'" for path in partition_of)
    query = f"SELECT {wanted}, filename FROM read_parquet([{files}], union_by_name=true, filename=true)"
    answer = connection.execute(query.replace(" AS string", " AS varchar"))
    names = [column[0] for column in answer.description]
    rows = [dict(zip(names, row)) for row in answer.fetchall()]
    partitions = [partition_of[row.pop("filename")] for row in rows]
    return [{**row, **values} for row, values in zip(rows, partitions)]


def ordered(rows):
    rows = [{name: None if value is None else str(value) for name, value in row.items()} for row in rows]
    return sorted(rows, key=lambda row: json.dumps(row, sort_keys=True))


what, *args = sys.argv[1:]
print(json.dumps({"database": database, "show": show, "read": read, "files": count}[what](*args)))
