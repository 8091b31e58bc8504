"""Datapoints of CloudWatch metrics as an independent client (boto3) sees them.

    python cloudwatch.py NAMESPACE START END METRIC…       times in seconds since the epoch

Prints {metric: {"YYYY-MM-DDTHH:MM:SSZ": [sum, samples]}}.
"""

import datetime
import json
import os
import sys

import boto3


def main(namespace, start, end, *metrics):
    client = boto3.client(
        "cloudwatch", endpoint_url=os.environ["AWS_ENDPOINT_URL"], region_name=os.environ["AWS_REGION"]
    )
    found = {}
    for metric in metrics:
        answer = client.get_metric_statistics(
            Namespace=namespace, MetricName=metric, Period=60, Statistics=["Sum", "SampleCount"],
            StartTime=at(start), EndTime=at(end),
        )
        found[metric] = {
            point["Timestamp"].strftime("%Y-%m-%dT%H:%M:%SZ"): [point["Sum"], point["SampleCount"]]
            for point in answer["Datapoints"]
        }
    print(json.dumps(found))


def at(seconds):
    return datetime.datetime.fromtimestamp(int(seconds), datetime.timezone.utc)


main(*sys.argv[1:])
