"""Raw deliveries, as Firehose and people leave them in a bucket of the emulator.

    python raw.py deliver BUCKET        impressions in gzip, two of them broken; clicks in CSV and Parquet
    python raw.py overwrite BUCKET      another version of the first object of impressions
    python raw.py put BUCKET KEY FROM TO  an object of JSON lines, ids FROM to TO
    python raw.py notify BUCKET QUEUE   a queue that the bucket tells of new objects; prints its URL
    python raw.py waiting URL           messages in a queue, seen by somebody or not

Prints JSON: of `deliver` and `overwrite` the ids that a reader must find, by stream.
"""

import datetime
import gzip
import io
import json
import os
import sys

import boto3
import pyarrow
import pyarrow.parquet as parquet

START = datetime.datetime(2026, 11, 23, 20)
OBJECTS = 24
ROWS = 2_000


def client(service):
    return boto3.client(service, endpoint_url=os.environ["AWS_ENDPOINT_URL"], region_name=os.environ["AWS_REGION"])


def stamp(n):
    return str(START + datetime.timedelta(seconds=n))[:19]


def lines(ids):
    rows = ({"impression_id": id, "ad_id": f"a{n % 7}", "occurred_at": stamp(n)} for n, id in enumerate(ids))
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def put(bucket, key, body):
    client("s3").put_object(Bucket=bucket, Key=key, Body=body)


def impressions(hour):
    at = START + datetime.timedelta(hours=hour)
    return f"data/raw/ad/impressions/{at:%Y/%m/%d/%H}/impressions-1-{at:%Y-%m-%d-%H}-00-00-0f.gz"


def deliver(bucket):
    client("s3").create_bucket(Bucket=bucket)
    ids = []
    for hour in range(OBJECTS):
        here = [f"i{hour}-{n}" for n in range(ROWS)]
        put(bucket, impressions(hour), gzip.compress(lines(here)))
        ids += here
    # Whole up to its second member, which was cut.
    here = [f"cut-{n}" for n in range(100)]
    put(bucket, impressions(OBJECTS), gzip.compress(lines(here[:50])) + gzip.compress(lines(here[50:]))[:12])
    ids += here[:50]
    # Of several megabytes, and not packed: reading can go on in the middle.
    here = [f"plain-{n}" for n in range(40_000)]
    put(bucket, "data/raw/ad/impressions/2026/plain", lines(here))
    ids += here
    bad = b'{"impression_id": 7}\n' + lines(["after-bad"])
    put(bucket, impressions(OBJECTS + 1), gzip.compress(bad))
    ids.append("after-bad")
    for key in ["_SUCCESS", "_temporary/0/part-0.gz", ".hidden", "2026/a.gz.tmp"]:
        put(bucket, f"data/raw/ad/impressions/{key}", gzip.compress(lines(["unwanted"])))
    put(bucket, "data/raw/ad/impressions2/a.gz", gzip.compress(lines(["unwanted"])))
    return {"impressions": ids, "clicks": clicks(bucket)}


def clicks(bucket):
    rows = [{"impression_id": f"i{n}", "click_id": f"csv{n}", "ad_id": 'a,"b"', "occurred_at": stamp(n)} for n in range(3_000)]
    text = io.StringIO()
    text.write("click_id,ad_id,impression_id,occurred_at,more\n")
    for row in rows:
        text.write(f'{row["click_id"]},"a,""b""",{row["impression_id"]},{row["occurred_at"]},\n')
    put(bucket, "data/raw/ad/clicks/2026/clicks.csv", text.getvalue().encode())
    more = [dict(row, click_id=f"parquet{n}", occurred_at=START + datetime.timedelta(seconds=n)) for n, row in enumerate(rows)]
    file = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(more), file, row_group_size=1_000)
    put(bucket, "data/raw/ad/clicks/2026/clicks.parquet", file.getvalue())
    return [row["click_id"] for row in rows + more]


def overwrite(bucket):
    ids = [f"again-{n}" for n in range(500)]
    put(bucket, impressions(0), gzip.compress(lines(ids)))
    return {"impressions": ids}


def notify(bucket, queue):
    url = client("sqs").create_queue(QueueName=queue, Attributes={"VisibilityTimeout": "2"})["QueueUrl"]
    arn = client("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    wanted = {"QueueArn": arn, "Events": ["s3:ObjectCreated:*"]}
    client("s3").put_bucket_notification_configuration(
        Bucket=bucket, NotificationConfiguration={"QueueConfigurations": [wanted]}
    )
    return url


def waiting(url):
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    counts = client("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
    return sum(int(counts[name]) for name in names)


def put_ids(bucket, key, first, last):
    put(bucket, key, lines([f"n{n}" for n in range(int(first), int(last))]))


commands = {"deliver": deliver, "overwrite": overwrite, "put": put_ids, "notify": notify, "waiting": waiting}
print(json.dumps(commands[sys.argv[1]](*sys.argv[2:])))
