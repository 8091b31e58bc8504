"""Streams of Kinesis and Firehose on the emulator, for an independent client (boto3).

    python streams.py create STREAM SHARDS          a data stream
    python streams.py read STREAM                   prints its rows by shard, in order
    python streams.py deliver STREAM BUCKET         a delivery stream that lands in a new bucket
    python streams.py landed BUCKET                 prints the rows of all files in the bucket
"""

import json
import os
import sys

import boto3


def client(service):
    return boto3.client(service, endpoint_url=os.environ["AWS_ENDPOINT_URL"], region_name=os.environ["AWS_REGION"])


def create(stream, shards):
    kinesis = client("kinesis")
    kinesis.create_stream(StreamName=stream, ShardCount=int(shards))
    kinesis.get_waiter("stream_exists").wait(StreamName=stream, WaiterConfig={"Delay": 1, "MaxAttempts": 60})


def read(stream):
    kinesis = client("kinesis")
    shards = []
    for shard in kinesis.list_shards(StreamName=stream)["Shards"]:
        rows = []
        at = kinesis.get_shard_iterator(
            StreamName=stream, ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON"
        )["ShardIterator"]
        while True:
            page = kinesis.get_records(ShardIterator=at, Limit=10000)
            rows += [json.loads(line) for r in page["Records"] for line in r["Data"].split(b"\n")]
            at = page["NextShardIterator"]
            if not page["Records"] and page["MillisBehindLatest"] == 0:
                break
        shards.append(rows)
    return shards


def deliver(stream, bucket):
    client("s3").create_bucket(Bucket=bucket)
    client("firehose").create_delivery_stream(
        DeliveryStreamName=stream,
        ExtendedS3DestinationConfiguration={
            "RoleARN": "arn:aws:iam::000000000000:role/firehose", "BucketARN": f"arn:aws:s3:::{bucket}",
        },
    )


def landed(bucket):
    s3 = client("s3")
    rows = []
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket):
        for found in page.get("Contents", []):
            data = s3.get_object(Bucket=bucket, Key=found["Key"])["Body"].read()
            assert data.endswith(b"\n"), found["Key"]
            rows += [json.loads(line) for line in data.splitlines()]
    return rows


what = {"create": create, "read": read, "deliver": deliver, "landed": landed}[sys.argv[1]]
print(json.dumps(what(*sys.argv[2:])))
