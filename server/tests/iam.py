"""Holds the requests of each component against its role.

    python iam.py OUTPUTS COMPONENT=REQUESTS.jsonl …      OUTPUTS: those of the stack, as JSON

Every request must be allowed by the component's policy, which is read back from IAM (or, where OUTPUTS has no role of it, as
the emulator makes no Redshift, from the file OUTPUTS["Template"]), and every action that the policy
allows must have been needed, or stand in UNUSED with a reason. Prints {component: [action…]}.
"""

import collections
import fnmatch
import json
import os
import re
import sys
import urllib.parse

import boto3
import cbor2
import yaml

# Allowed, not needed by the pipelines of server/tests/deploy.rs, and why it stays. What is needed must not stand here.
UNUSED = {
    "dataflow": {
        "s3:AbortMultipartUpload": "only where a crash leaves an upload of more than 8 MiB: server/tests/uploads.rs",
        "dynamodb:PutItem": "only with `version`: server/tests/dynamodb.rs",
    },
    "loader": {
        "redshift-serverless:GetCredentials": "the Data API asks for it in our name: no request of ours",
        "redshift-data:CancelStatement": "only for a load that is cancelled: server/tests/warehouse_dated.rs",
    },
}

# What else a service calls the same permission.
PERMISSION = {
    "sqs:DeleteMessageBatch": "sqs:DeleteMessage",
}
SERVICE = {"monitoring": "cloudwatch"}


def main(outputs, *recorded):
    outputs = json.loads(outputs)
    needed = {}
    problems = []
    files = collections.defaultdict(list)
    for component, file in (one.split("=", 1) for one in recorded):
        files[component].append(file)
    for component, requests in files.items():
        calls = [parse(json.loads(line)) for file in requests for line in open(file, encoding="utf-8")]
        statements = policy(component.capitalize(), outputs)
        for call in calls:
            if not any(allows(statement, call) for statement in statements):
                problems.append(f"{component} makes a call that its role does not allow: {call}")
        used = {call.action for call in calls}
        unused = UNUSED.get(component, {})
        for action in sorted({a for s in statements for a in listed(s["Action"])} - used - set(unused)):
            problems.append(f"{component} is allowed what it does not need: {action}")
        for action in sorted(used & set(unused)):
            problems.append(f"{component} needs {action}: take it out of UNUSED in server/tests/iam.py")
        needed[component] = sorted(used)
    if problems:
        sys.exit("\n".join(sorted(set(problems))))
    print(json.dumps(needed))


def policy(component, outputs):
    role = outputs.get(f"{component}RoleArn")
    if role is None:
        return of_template(f"{component}Role", outputs)
    iam = boto3.client("iam", endpoint_url=os.environ["AWS_ENDPOINT_URL"], region_name=os.environ["AWS_REGION"])
    name = role.rsplit("/", 1)[1]
    names = iam.list_role_policies(RoleName=name)["PolicyNames"]
    documents = [iam.get_role_policy(RoleName=name, PolicyName=n)["PolicyDocument"] for n in names]
    return [statement for document in documents for statement in document["Statement"]]


def of_template(role, outputs):
    """The statements of a role in the template, with the names that its functions stand for."""
    bucket = f"arn:aws:s3:::{outputs['BucketName']}"
    names = {"Bucket.Arn": bucket, "Warehouse.Workgroup.WorkgroupArn": workgroup("millstream")}

    def filled(loader, tag, node):
        if not isinstance(node, yaml.ScalarNode):
            return loader.construct_sequence(node) if isinstance(node, yaml.SequenceNode) else None
        if tag == "GetAtt":
            return names.get(node.value, node.value)
        return re.sub(r"\$\{([^}]+)\}", lambda name: names.get(name[1], name[0]), node.value)

    class Loader(yaml.SafeLoader):
        pass

    Loader.add_multi_constructor("!", filled)
    with open(outputs["Template"], encoding="utf-8") as file:
        found = yaml.load(file, Loader)["Resources"][role]["Properties"]["Policies"]
    return [statement for policy in found for statement in policy["PolicyDocument"]["Statement"]]


def workgroup(name):
    return f"arn:aws:redshift-serverless:us-east-1:000000000000:workgroup/{name}"


Call = collections.namedtuple("Call", "action resources context")


def allows(statement, call):
    """An empty list of resources is of a request that names none, such as one by shard iterator."""
    return (
        statement["Effect"] == "Allow"
        and call.action in listed(statement["Action"])
        and all(matches(resource, listed(statement["Resource"])) for resource in call.resources)
        and all(
            matches(call.context.get(key), listed(wanted)) or (key not in call.context and operator.endswith("IfExists"))
            for operator, conditions in statement.get("Condition", {}).items()
            for key, wanted in conditions.items()
        )
    )


def matches(value, patterns):
    return value is not None and any(fnmatch.fnmatchcase(value, pattern) for pattern in patterns)


def listed(value):
    return value if isinstance(value, list) else [value]


def parse(request):
    first, *lines = request["head"].strip().split("\r\n")
    method, target, _ = first.split(" ")
    headers = {k.lower(): v for k, _, v in (line.partition(": ") for line in lines)}
    body = bytes.fromhex(request["body"])
    # Credential=<key>/<date>/<region>/<service>/aws4_request
    scope = headers["authorization"].partition("Credential=")[2].split(",")[0].split("/")
    service = SERVICE.get(scope[3], scope[3])
    url = urllib.parse.urlsplit(target)
    if service == "s3":
        return s3(method, url, body)
    if "x-amz-target" in headers:
        operation, named = headers["x-amz-target"].split(".")[1], json.loads(body)
    elif "/operation/" in url.path:
        operation, named = url.path.rsplit("/", 1)[1], cbor(body, headers)
    else:
        form = dict(urllib.parse.parse_qsl(body.decode()))
        operation, named = form["Action"], form
    action = f"{service}:{operation}"
    about = context(named)
    if service == "redshift-data" and "Id" in named:
        # Of a statement of its own.
        about["redshift-data:statement-owner-iam-userid"] = "${aws:userid}"
    return Call(PERMISSION.get(action, action), resources(service, scope[2], named), about)


def cbor(body, headers):
    if headers.get("content-encoding") == "gzip":
        import gzip

        body = gzip.decompress(body)
    return cbor2.loads(body)


def context(named):
    """What conditions may ask for."""
    return {"cloudwatch:namespace": named["Namespace"]} if "Namespace" in named else {}


def resources(service, region, named):
    arn = lambda rest: f"arn:aws:{service}:{region}:000000000000:{rest}"
    if service == "kinesis":
        if "StreamARN" in named:
            return [named["StreamARN"]]
        return [arn(f"stream/{named['StreamName']}")] if "StreamName" in named else []
    if service == "firehose":
        return [arn(f"deliverystream/{named['DeliveryStreamName']}")]
    if service == "dynamodb":
        tables = [named["TableName"]] if "TableName" in named else list(named["RequestItems"])
        return [arn(f"table/{table}") for table in tables]
    if service == "redshift-data":
        return [workgroup(named["WorkgroupName"])] if "WorkgroupName" in named else ["*"]
    if service == "sqs":
        return [arn(named["QueueUrl"].rsplit("/", 1)[1])]
    if service == "glue":
        table = named.get("TableName") or named.get("TableInput", named).get("Name")
        return [arn("catalog"), arn(f"database/{named['DatabaseName']}"), arn(f"table/{named['DatabaseName']}/{table}")]
    if "DashboardName" in named:
        return [f"arn:aws:cloudwatch::000000000000:dashboard/{named['DashboardName']}"]
    if "AlarmName" in named:
        return [arn(f"alarm:{named['AlarmName']}")]
    return ["*"]


def s3(method, url, body):
    bucket, _, key = urllib.parse.unquote(url.path).lstrip("/").partition("/")
    query = dict(urllib.parse.parse_qsl(url.query, keep_blank_values=True))
    if not key:
        action = {
            ("GET", True): "s3:ListBucketMultipartUploads",
            ("GET", False): "s3:ListBucket",
            ("HEAD", False): "s3:ListBucket",
            ("POST", False): "s3:DeleteObject",
        }[method, "uploads" in query]
        if "delete" in query:
            keys = re.findall(r"<Key>(.*?)</Key>", body.decode())
            return Call(action, [f"arn:aws:s3:::{bucket}/{key}" for key in keys], {})
        return Call(action, [f"arn:aws:s3:::{bucket}"], {"s3:prefix": query.get("prefix", "")})
    action = {
        ("GET", False): "s3:GetObject",
        ("GET", True): "s3:ListMultipartUploadParts",
        ("HEAD", False): "s3:GetObject",
        ("PUT", False): "s3:PutObject",
        ("PUT", True): "s3:PutObject",
        ("POST", False): "s3:PutObject",
        ("POST", True): "s3:PutObject",
        ("DELETE", False): "s3:DeleteObject",
        ("DELETE", True): "s3:AbortMultipartUpload",
    }[method, "uploadId" in query]
    return Call(action, [f"arn:aws:s3:::{bucket}/{key}"], {})


main(*sys.argv[1:])
