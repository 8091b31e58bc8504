"""The data that `millstream query` reads, from outside.

    python query.py raw DIR|s3://bucket/prefix KIND FILE   writes the rows of FILE (JSON) as a raw delivery below
                                                           ad/KIND/YYYY/MM/DD/HH/, a third each in gzip, zstd and plain
    python query.py days DIR|s3://bucket/prefix            prints [[day, rows, ads], …] of a table of the lake
    python query.py extend DIR                             adds a file to a table, with a column more and a row without a time
    python query.py damage DIR|s3://bucket/prefix DAY      overwrites the table's files of a day (2026/11/22)
"""

import collections
import gzip
import json
import os
import sys

import boto3
import duckdb
import pyarrow
import pyarrow.dataset as dataset
import pyarrow.fs as fs
import pyarrow.parquet as parquet


def place(where):
    if where.startswith("s3://"):
        endpoint = os.environ["AWS_ENDPOINT_URL"]
        return fs.S3FileSystem(endpoint_override=endpoint, region=os.environ["AWS_REGION"]), where.removeprefix("s3://")
    return fs.LocalFileSystem(), where


def write(where, path, content):
    if where.startswith("s3://"):
        bucket, _, prefix = where.removeprefix("s3://").partition("/")
        s3 = boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"], region_name=os.environ["AWS_REGION"])
        s3.put_object(Bucket=bucket, Key=f"{prefix}/{path}", Body=content)
        return
    path = os.path.join(where, path)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(content)


PACKED = [
    (".gz", gzip.compress),
    (".json.zst", lambda content: pyarrow.compress(content, codec="zstd", asbytes=True)),
    (".jsonl", bytes),
]


def raw(where, kind, file):
    by_hour = collections.defaultdict(list)
    with open(file) as rows:
        for row in json.load(rows):
            at = row["occurred_at"]
            by_hour[f"{at[:4]}/{at[5:7]}/{at[8:10]}/{at[11:13]}"].append(row)
    for number, (hour, rows) in enumerate(sorted(by_hour.items())):
        ending, pack = PACKED[number % len(PACKED)]
        content = "".join(json.dumps(row) + "\n" for row in rows).encode()
        write(where, f"ad/{kind}/{hour}/delivery-{number}{ending}", pack(content))
    # A delivery that broke off.
    write(where, f"ad/{kind}/2026/11/21/00/broken.json", b'{"ad_id": "x", "occ')
    return len(by_hour)


def days(where):
    files, base = place(where)
    rows = dataset.dataset(base, format="parquet", partitioning="hive", filesystem=files).to_table()
    query = "SELECT CAST(CAST(occurred_at AS DATE) AS VARCHAR), count(*), count(DISTINCT ad_id) FROM rows GROUP BY 1 ORDER BY 1"
    return duckdb.sql(query).fetchall() if rows.num_rows else []


def damage(where, day):
    files, base = place(where)
    year, month, date = day.split("/")
    below = f"{base}/year={year}/month={month}/day={date}"
    found = [of.path for of in files.get_file_info(fs.FileSelector(below)) if of.is_file]
    for path in found:
        with files.open_output_stream(path) as to:
            to.write(b"PAR1 is not all of it")
    return len(found)


def extend(where):
    rows = {"impression_id": ["x"], "ad_id": ["x"], "occurred_at": pyarrow.array([None], pyarrow.timestamp("us")), "campaign": ["c"]}
    below = "year={0}/month={0}/day={0}".format("__HIVE_DEFAULT_PARTITION__")
    os.makedirs(f"{where}/{below}")
    parquet.write_table(pyarrow.table(rows), f"{where}/{below}/later.parquet")
    return 1


print(json.dumps(globals()[sys.argv[1]](*sys.argv[2:])))
