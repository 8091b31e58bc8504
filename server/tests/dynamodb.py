"""A DynamoDB table as an independent client (boto3) sees it.

    python dynamodb.py scan TABLE              prints the items, numbers as {"N": "…"} and so on
    python dynamodb.py describe TABLE          prints {"billing": …, "key": [[name, type, kind], …]}
    python dynamodb.py create TABLE KEY…       creates it, each KEY name:type, or index:name:type for a secondary index
    python dynamodb.py put TABLE ITEM…         puts items of that form
"""

import json
import os
import sys

import boto3

client = boto3.client("dynamodb", endpoint_url=os.environ["AWS_ENDPOINT_URL"], region_name=os.environ["AWS_REGION"])


def scan(table):
    pages = client.get_paginator("scan").paginate(TableName=table, ConsistentRead=True)
    return [item for page in pages for item in page["Items"]]


def describe(table):
    found = client.describe_table(TableName=table)["Table"]
    types = {of["AttributeName"]: of["AttributeType"] for of in found["AttributeDefinitions"]}
    key = [[part["AttributeName"], types[part["AttributeName"]], part["KeyType"]] for part in found["KeySchema"]]
    return {"billing": found["BillingModeSummary"]["BillingMode"], "key": key}


def create(table, *typed_keys):
    keys, indexes = [], []
    for typed in typed_keys:
        *index, name, of = typed.split(":")
        (indexes if index else keys).append((name, of))
    more = {"GlobalSecondaryIndexes": [
        {"IndexName": f"by_{name}", "KeySchema": [{"AttributeName": name, "KeyType": "HASH"}],
         "Projection": {"ProjectionType": "ALL"}} for name, _ in indexes
    ]} if indexes else {}
    client.create_table(
        TableName=table, BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[{"AttributeName": name, "AttributeType": of} for name, of in keys + indexes],
        KeySchema=[{"AttributeName": name, "KeyType": kind} for (name, _), kind in zip(keys, ["HASH", "RANGE"])],
        **more,
    )


def put(table, *items):
    for item in items:
        client.put_item(TableName=table, Item=json.loads(item))


def plain(value):
    return value.hex() if isinstance(value, bytes) else str(value)


what, *args = sys.argv[1:]
print(json.dumps({"scan": scan, "describe": describe, "create": create, "put": put}[what](*args), default=plain))
