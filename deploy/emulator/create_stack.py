"""Creates the stack of cloudformation.yaml where AWS_ENDPOINT_URL points, unless it is there."""

import pathlib
import sys

import boto3

NAME = "millstream"

client = boto3.client("cloudformation")
template = pathlib.Path(__file__).with_name("cloudformation.yaml").read_text(encoding="utf-8")
try:
    client.create_stack(StackName=NAME, TemplateBody=template, Capabilities=["CAPABILITY_NAMED_IAM"])
except client.exceptions.AlreadyExistsException:
    sys.exit(0)
client.get_waiter("stack_create_complete").wait(StackName=NAME, WaiterConfig={"Delay": 1, "MaxAttempts": 60})
