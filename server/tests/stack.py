"""Creates the stack of deploy/cloudformation.yaml on the emulator, reads back what it made, and prints the outputs.

    python stack.py TEMPLATE

What the emulator does not make of a resource (encryption, lifecycle, backups; Redshift) is looked up in
the template.
"""

import json
import os
import sys
import time

import boto3

NAME = "millstream"


def client(service):
    return boto3.client(service, endpoint_url=os.environ["AWS_ENDPOINT_URL"], region_name=os.environ["AWS_REGION"])


def main(template):
    body = open(template, encoding="utf-8").read()
    outputs = create(body)
    streams(outputs)
    deliveries(outputs)
    bucket(outputs)
    table(outputs)
    alarms(outputs)
    dashboards(outputs)
    topic(outputs)
    roles(outputs)
    database = client("glue").get_database(Name="advertising")["Database"]
    assert database["LocationUri"] == f"s3://{outputs['BucketName']}/lake/", database
    of_the_template(body)
    print(json.dumps(outputs))


def create(body):
    cloudformation = client("cloudformation")
    mail = {"ParameterKey": "AlarmEmail", "ParameterValue": "ops@example.com"}
    cloudformation.create_stack(
        StackName=NAME, TemplateBody=body, Capabilities=["CAPABILITY_NAMED_IAM"], Parameters=[mail]
    )
    deadline = time.monotonic() + 120
    while True:
        stack = cloudformation.describe_stacks(StackName=NAME)["Stacks"][0]
        if not stack["StackStatus"].endswith("IN_PROGRESS"):
            break
        assert time.monotonic() < deadline, stack
        time.sleep(0.1)
    if stack["StackStatus"] != "CREATE_COMPLETE":
        events = cloudformation.describe_stack_events(StackName=NAME)["StackEvents"]
        failed = [(e["LogicalResourceId"], e.get("ResourceStatusReason")) for e in events if "FAILED" in e["ResourceStatus"]]
        raise AssertionError(f"{stack['StackStatus']}: {failed}")
    return {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}


def streams(outputs):
    for name in outputs["ImpressionsStreamName"], outputs["ClicksStreamName"]:
        stream = client("kinesis").describe_stream_summary(StreamName=name)["StreamDescriptionSummary"]
        assert stream["StreamModeDetails"]["StreamMode"] == "ON_DEMAND", stream
        assert stream["RetentionPeriodHours"] == 24, stream


def deliveries(outputs):
    for what in "Impressions", "Clicks":
        name = outputs[f"{what}DeliveryName"]
        described = client("firehose").describe_delivery_stream(DeliveryStreamName=name)["DeliveryStreamDescription"]
        to = described["Destinations"][0]["ExtendedS3DestinationDescription"]
        assert to["BucketARN"].endswith(outputs["BucketName"]), to
        assert to["Prefix"] == f"data/raw/ad/{what.lower()}/!{{timestamp:yyyy/MM/dd/HH}}/", to
        assert to["CompressionFormat"] == "GZIP", to
        assert to["BufferingHints"] == {"IntervalInSeconds": 900, "SizeInMBs": 128}, to


def bucket(outputs):
    s3 = client("s3")
    name = outputs["BucketName"]
    assert s3.get_bucket_versioning(Bucket=name)["Status"] == "Enabled"
    to = s3.get_bucket_notification_configuration(Bucket=name)["QueueConfigurations"]
    assert {one["QueueArn"].rsplit(":", 1)[1] for one in to} == {"millstream-raw-impressions", "millstream-raw-clicks"}, to
    policy = json.loads(s3.get_bucket_policy(Bucket=name)["Policy"])
    assert [s["Effect"] for s in policy["Statement"]] == ["Deny"], policy
    # A queue says what is new of its kind, and nothing else.
    made = "lake/x", "data/raw/ad/clicks/x", "data/raw/ad/impressions/x"
    for key in made:
        s3.put_object(Bucket=name, Key=key, Body=b"")
    for what in "Impressions", "Clicks":
        assert told(outputs[f"{what}QueueUrl"]) == [f"data/raw/ad/{what.lower()}/x"]
    for key in made:
        s3.delete_object(Bucket=name, Key=key)


def told(queue):
    sqs = client("sqs")
    messages = sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10, WaitTimeSeconds=2).get("Messages", [])
    for message in messages:
        sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
    bodies = [json.loads(message["Body"]) for message in messages]
    return [record["s3"]["object"]["key"] for body in bodies for record in body.get("Records", [])]


def table(outputs):
    name = outputs["TrafficTableName"]
    found = client("dynamodb").describe_table(TableName=name)["Table"]
    keys = {key["AttributeName"]: key["KeyType"] for key in found["KeySchema"]}
    assert keys == {"ad_id": "HASH", "day": "RANGE"}, found
    assert found["BillingModeSummary"]["BillingMode"] == "PAY_PER_REQUEST", found


def alarms(outputs):
    found = client("cloudwatch").describe_alarms()["MetricAlarms"]
    assert len(found) == 15, [alarm["AlarmName"] for alarm in found]
    for alarm in found:
        assert alarm["AlarmActions"] == alarm["OKActions"] == [outputs["AlarmTopicArn"]], alarm
        assert (alarm["EvaluationPeriods"], alarm["DatapointsToAlarm"]) == (5, 3), alarm
        assert alarm["Dimensions"][0]["Value"] in outputs.values(), alarm
    limits = {alarm["AlarmName"]: alarm["Threshold"] for alarm in found}
    assert limits["millstream-clicks-records"] == 240_000, limits


def dashboards(outputs):
    cloudwatch = client("cloudwatch")
    body = cloudwatch.get_dashboard(DashboardName="RealTimeAdvertisingDashboard")["DashboardBody"]
    widget = json.loads(body)["widgets"][0]
    assert (widget["width"], widget["height"], widget["properties"]["title"]) == (24, 12, "Clickthrough Rate"), widget
    metrics = widget["properties"]["metrics"]
    assert metrics[0][0]["expression"] == "clicks/impressions", metrics
    assert [m[:2] for m in metrics[1:]] == [["Warehouse/Advertising", n] for n in ("Clicks", "Impressions")], metrics
    body = json.loads(cloudwatch.get_dashboard(DashboardName="millstream-services")["DashboardBody"])
    shown = [w["properties"] for w in body["widgets"] if w["type"] == "metric"]
    assert all(properties["region"] == os.environ["AWS_REGION"] for properties in shown), shown
    named = {name for properties in shown for metric in properties["metrics"] for name in metric if isinstance(name, str)}
    for output in "ImpressionsStreamName", "ClicksDeliveryName", "TrafficTableName", "BucketName":
        assert outputs[output] in named, (output, named)


def topic(outputs):
    found = client("sns").list_subscriptions_by_topic(TopicArn=outputs["AlarmTopicArn"])["Subscriptions"]
    assert [(s["Protocol"], s["Endpoint"]) for s in found] == [("email", "ops@example.com")], found


def roles(outputs):
    iam = client("iam")
    for component in "Collector", "Dataflow", "Dashboards":
        name = outputs[f"{component}RoleArn"].rsplit("/", 1)[1]
        trust = iam.get_role(RoleName=name)["Role"]["AssumeRolePolicyDocument"]
        assert [s["Principal"] for s in trust["Statement"]] == [{"Service": "ec2.amazonaws.com"}], trust


def of_the_template(body):
    """Nothing is open to the world, no password has a default, what holds data is kept."""
    from cfnlint.decode import cfn_yaml

    template = cfn_yaml.loads(body)
    resources = template["Resources"]
    bucket = resources["Bucket"]["Properties"]
    assert all(bucket["PublicAccessBlockConfiguration"].values()), bucket
    assert bucket["BucketEncryption"]["ServerSideEncryptionConfiguration"], bucket
    rules = {rule["Id"]: rule for rule in bucket["LifecycleConfiguration"]["Rules"]}
    assert rules["unfinished-uploads"]["AbortIncompleteMultipartUpload"]["DaysAfterInitiation"] == 7, rules
    assert rules["former-versions"]["NoncurrentVersionExpiration"]["NoncurrentDays"] == 30, rules
    table = resources["TrafficTable"]["Properties"]
    assert table["PointInTimeRecoverySpecification"]["PointInTimeRecoveryEnabled"] is True, table
    for stream in "ImpressionsStream", "ClicksStream":
        assert resources[stream]["Properties"]["StreamEncryption"]["EncryptionType"] == "KMS", stream
    namespace, workgroup = (resources[n]["Properties"] for n in ("WarehouseNamespace", "Warehouse"))
    assert namespace["ManageAdminPassword"] is True and "AdminUserPassword" not in namespace, namespace
    assert workgroup["PubliclyAccessible"] is False, workgroup
    for kept in "Bucket", "ImpressionsStream", "ClicksStream", "TrafficTable", "WarehouseNamespace":
        assert resources[kept]["DeletionPolicy"] == resources[kept]["UpdateReplacePolicy"] == "Retain", kept
    assert "0.0.0.0/0" not in body and "::/0" not in body
    assert not [p for p in template["Parameters"] if "password" in p.lower()]
    assert all(p.get("Description") for p in template["Parameters"].values())
    for name, resource in resources.items():
        for statement in statements(resource):
            if statement["Effect"] == "Allow":
                assert "*" not in str(statement.get("Principal", "")), (name, statement)
                actions = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
                assert not any("*" in str(action) for action in actions), (name, statement)


def statements(of):
    if isinstance(of, dict):
        yield from of.get("Statement", [])
        for value in of.values():
            yield from statements(value)
    elif isinstance(of, list):
        for value in of:
            yield from statements(value)


main(*sys.argv[1:])
