"""The table `advertising` of a lake as an independent reader (pyarrow) sees it: daily.py DIR|s3://bucket/prefix

Prints {"rows": [[day, ad, impression, click, impression_at, click_at]…], "files": [name…]}, both sorted.
"""

import json
import os
import sys

import pyarrow.dataset as dataset
import pyarrow.fs as fs


def main(where):
    files, base = fs.LocalFileSystem(), where
    if where.startswith("s3://"):
        files = fs.S3FileSystem(endpoint_override=os.environ["AWS_ENDPOINT_URL"], region=os.environ["AWS_REGION"])
        base = where.removeprefix("s3://")
    found = files.get_file_info(fs.FileSelector(base, recursive=True, allow_not_found=True))
    names = sorted(info.path.removeprefix(base).lstrip("/") for info in found if info.is_file)
    rows = []
    if names:
        table = dataset.dataset(base, format="parquet", partitioning="hive", filesystem=files).to_table()
        rows = [
            [f"{r['year']}-{r['month']:02}-{r['day']:02}", r["ad_id"], r["impression_id"], r["click_id"],
             str(r["impression_at"]), str(r["click_at"] or "")]
            for r in table.to_pylist()
        ]
    print(json.dumps({"rows": sorted(rows, key=str), "files": names}))


main(*sys.argv[1:])
