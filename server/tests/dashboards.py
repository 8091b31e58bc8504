"""CloudWatch and what belongs to it as an independent client (boto3) sees it; each command prints JSON.

    python dashboards.py measured NAMESPACE MINUTE     datapoints of a minute, by metric and period
    python dashboards.py rejected DIR                  refused rows in Parquet files: [origin, reason, row]
    python dashboards.py topic                         makes a topic that a queue listens to, and a stream with a row
    python dashboards.py look QUEUE                    dashboards, alarms, and what of them names no metric
"""

import datetime
import json
import os
import re
import sys

import boto3
import pyarrow.dataset as dataset


def client(service):
    return boto3.client(service, endpoint_url=os.environ["AWS_ENDPOINT_URL"], region_name=os.environ["AWS_REGION"])


def measured(namespace, minute):
    start = datetime.datetime.fromtimestamp(int(minute), datetime.timezone.utc)
    cloudwatch = client("cloudwatch")
    found = {}
    for metric in cloudwatch.list_metrics(Namespace=namespace)["Metrics"]:
        for period in (1, 60):
            points = cloudwatch.get_metric_statistics(
                Namespace=namespace, MetricName=metric["MetricName"], Dimensions=metric["Dimensions"], Period=period,
                StartTime=start, EndTime=start + datetime.timedelta(minutes=1),
                Statistics=["SampleCount", "Sum", "Minimum", "Maximum"],
            )["Datapoints"]
            name = " ".join([metric["MetricName"], *(d["Value"] for d in metric["Dimensions"]), f"{period}s"])
            found[name] = {
                int((p["Timestamp"] - start).total_seconds()): [
                    p["SampleCount"], p["Sum"], p["Minimum"], p["Maximum"], p["Unit"],
                ]
                for p in points
            }
    return found


def rejected(where):
    rows = dataset.dataset(where, format="parquet").to_table().to_pylist()
    return [[row["origin"], row["reason"], json.loads(row["raw"])] for row in rows]


def topic():
    sns, sqs = client("sns"), client("sqs")
    arn = sns.create_topic(Name="alarms")["TopicArn"]
    queue = sqs.create_queue(QueueName="alarms")["QueueUrl"]
    attributes = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]
    sns.subscribe(TopicArn=arn, Protocol="sqs", Endpoint=attributes["QueueArn"])
    kinesis = client("kinesis")
    kinesis.create_stream(StreamName="streamed", ShardCount=1)
    kinesis.get_waiter("stream_exists").wait(StreamName="streamed", WaiterConfig={"Delay": 1})
    row = {"ad": "a", "at": "2026-11-25T00:00:00Z"}
    kinesis.put_record(StreamName="streamed", PartitionKey="a", Data=json.dumps(row).encode())
    return {"topic": arn, "queue": queue}


def look(queue):
    cloudwatch = client("cloudwatch")
    there = {
        (m["Namespace"], m["MetricName"], frozenset((d["Name"], d["Value"]) for d in m["Dimensions"]))
        for page in cloudwatch.get_paginator("list_metrics").paginate()
        for m in page["Metrics"]
    }
    names = [d["DashboardName"] for d in cloudwatch.list_dashboards()["DashboardEntries"]]
    bodies = {n: json.loads(cloudwatch.get_dashboard(DashboardName=n)["DashboardBody"]) for n in names}
    alarms = [a for page in cloudwatch.get_paginator("describe_alarms").paginate() for a in page["MetricAlarms"]]
    problems = [f"{name}: {p}" for name, body in bodies.items() for p in wrong_widgets(body["widgets"], there)]
    for alarm in alarms:
        about = (alarm["Namespace"], alarm["MetricName"], frozenset((d["Name"], d["Value"]) for d in alarm["Dimensions"]))
        if about not in there:
            problems.append(f"alarm {alarm['AlarmName']}: no metric {about}")
    keys = ["AlarmActions", "OKActions", "Statistic", "Threshold", "DatapointsToAlarm", "EvaluationPeriods",
            "TreatMissingData", "ComparisonOperator", "Period"]
    return {
        "dashboards": bodies,
        "alarms": {a["AlarmName"]: [a[key] for key in keys] for a in alarms},
        "problems": problems,
        "notified": notified(queue),
    }


def wrong_widgets(widgets, there):
    taken = set()
    for number, widget in enumerate(widgets):
        x, y, width, height = (widget[key] for key in ("x", "y", "width", "height"))
        cells = {(column, row) for column in range(x, x + width) for row in range(y, y + height)}
        if cells & taken or x + width > 24 or not cells:
            yield f"widget {number} has no place of its own"
        taken |= cells
        if widget["type"] == "text":
            if widgets[number + 1 : number + 2] == [] or widgets[number + 1]["type"] == "text":
                yield f"an empty section: {widget}"
            continue
        lines = widget["properties"]["metrics"]
        ids = {line[-1]["id"] for line in lines if isinstance(line[-1], dict) and "id" in line[-1]}
        if not any(named(line) or "SEARCH" in line[0]["expression"] for line in lines):
            yield f"widget {number} shows nothing"
        for line in lines:
            if named(line):
                words = [word for word in line if isinstance(word, str)]
                about = (words[0], words[1], frozenset(zip(words[2::2], words[3::2])))
                if about not in there:
                    yield f"no metric {about}"
            elif search := re.fullmatch(r"SEARCH\('\{(.*)\} MetricName=\"(.*)\"', '\w+', \d+\)", line[0]["expression"]):
                namespace, *dimensions = (word.strip('"') for word in search[1].split(","))
                if not any(m[:2] == (namespace, search[2]) and {d for d, _ in m[2]} == set(dimensions) for m in there):
                    yield f"nothing to find with {line}"
            elif unknown := set(re.findall(r"\b[a-z]\w*", line[0]["expression"])) - ids:
                yield f"{line} speaks of {unknown}"


def named(line):
    return isinstance(line[0], str)


def notified(queue):
    sqs = client("sqs")
    found = []
    while messages := sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages"):
        for message in messages:
            alarm = json.loads(json.loads(message["Body"])["Message"])
            found.append([alarm["AlarmName"], alarm["NewStateValue"]])
            sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
    return found


commands = {f.__name__: f for f in (measured, rejected, topic, look)}
print(json.dumps(commands[sys.argv[1]](*sys.argv[2:])))
