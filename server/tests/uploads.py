"""Counts what a bucket of the emulator holds: python uploads.py BUCKET. Prints {"objects": n, "multipart": n, "unfinished": n}."""

import json
import os
import sys

import boto3


def main(bucket):
    client = boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"], region_name=os.environ["AWS_REGION"])
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket)
    etags = [found["ETag"] for page in pages for found in page.get("Contents", [])]
    unfinished = client.list_multipart_uploads(Bucket=bucket).get("Uploads", [])
    multipart = sum("-" in etag for etag in etags)
    print(json.dumps({"objects": len(etags), "multipart": multipart, "unfinished": len(unfinished)}))


main(*sys.argv[1:])
