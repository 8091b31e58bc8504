"""Copies a bucket of the emulator into a directory: python download.py BUCKET DIR. Prints {"objects": n}."""

import json
import os
import pathlib
import sys

import boto3


def main(bucket, to):
    client = boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"], region_name=os.environ["AWS_REGION"])
    objects = 0
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket):
        for found in page.get("Contents", []):
            path = pathlib.Path(to) / found["Key"]
            path.parent.mkdir(parents=True, exist_ok=True)
            client.download_file(bucket, found["Key"], str(path))
            objects += 1
    print(json.dumps({"objects": objects}))


main(*sys.argv[1:])
