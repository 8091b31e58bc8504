"""Fills and reshards streams of the emulator, as an independent client (boto3).

    python kinesis.py create STREAM SHARDS
    python kinesis.py put STREAM KEY FIRST LAST AT       rows FIRST…LAST-1, stamped AT (seconds since the epoch), in
                                                         records of every form
    python kinesis.py bad STREAM                         records that hold no row
    python kinesis.py everywhere STREAM KEY FIRST AT     a row for every open shard
    python kinesis.py split|merge STREAM                 the first open shard, or the first two

Prints what it did as JSON; rows as the list of their ids.
"""

import datetime
import gzip
import hashlib
import json
import os
import sys

import boto3

client = boto3.client("kinesis", endpoint_url=os.environ["AWS_ENDPOINT_URL"], region_name=os.environ["AWS_REGION"])


def create(stream, shards):
    client.create_stream(StreamName=stream, ShardCount=int(shards))
    return stream


def put(stream, key, first, last, at):
    rows = [row(key, n, at) for n in range(int(first), int(last))]
    forms = [one, line_by_line, packed, aggregate]
    records = []
    for n, start in enumerate(range(0, len(rows), 5)):
        records += forms[n % len(forms)](rows[start : start + 5])
    send(stream, [{"Data": data, "PartitionKey": f"{first}-{n}"} for n, data in enumerate(records)])
    return [r[key] for r in rows]


def bad(stream):
    broken = bytearray(aggregate([{"a": 1}])[0])
    broken[-1] ^= 1
    records = [b"nonsense", b'{"ad_id": "a"}', b"\x1f\x8bnonsense", bytes(broken)]
    send(stream, [{"Data": data, "PartitionKey": str(n)} for n, data in enumerate(records)])
    return len(records)


def everywhere(stream, key, first, at):
    shards = open_shards(stream)
    rows = [row(key, int(first) + n, at) for n in range(len(shards))]
    send(stream, [
        {"Data": one([row])[0], "PartitionKey": "p", "ExplicitHashKey": shard["HashKeyRange"]["StartingHashKey"]}
        for row, shard in zip(rows, shards)
    ])
    return [r[key] for r in rows]


def split(stream):
    shard = open_shards(stream)[0]
    start, end = (int(shard["HashKeyRange"][f"{side}HashKey"]) for side in ("Starting", "Ending"))
    client.split_shard(
        StreamName=stream, ShardToSplit=shard["ShardId"], NewStartingHashKey=str((start + end + 1) // 2)
    )
    return shard["ShardId"]


def merge(stream):
    shards = sorted(open_shards(stream), key=lambda s: int(s["HashKeyRange"]["StartingHashKey"]))
    first, second = (shard["ShardId"] for shard in shards[:2])
    client.merge_shards(StreamName=stream, ShardToMerge=first, AdjacentShardToMerge=second)
    return [first, second]


def open_shards(stream):
    shards = client.list_shards(StreamName=stream)["Shards"]
    return [s for s in shards if "EndingSequenceNumber" not in s["SequenceNumberRange"]]


def send(stream, records):
    for start in range(0, len(records), 500):
        answer = client.put_records(StreamName=stream, Records=records[start : start + 500])
        assert answer["FailedRecordCount"] == 0, answer


def row(key, n, at):
    at = datetime.datetime.fromtimestamp(int(at), datetime.timezone.utc).strftime("%Y-%m-%d %H:%M:%S")
    return {"impression_id": "i", "ad_id": "a", "occurred_at": at, key: f"{key}-{n}"}


def one(rows):
    return [json.dumps(r).encode() for r in rows]


def line_by_line(rows):
    return [b"\n".join(one(rows))]


def packed(rows):
    return [gzip.compress(json.dumps(rows).encode())]


def aggregate(rows):
    """As the Kinesis Producer Library packs them, by its aggregation-format.md."""
    message = field(1, b"key")
    for data in one(rows):
        message += field(3, b"\x08\x00" + field(3, data))
    return [b"\xf3\x89\x9a\xc2" + message + hashlib.md5(message).digest()]


def field(number, data):
    length, rest = b"", len(data)
    while rest > 127:
        length += bytes([rest % 128 + 128])
        rest //= 128
    return bytes([number * 8 + 2]) + length + bytes([rest]) + data


command, *args = sys.argv[1:]
print(json.dumps(globals()[command](*args)))
