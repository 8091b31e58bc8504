"""Creates a bucket on the emulator: python bucket.py NAME."""

import os
import sys

import boto3

boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"], region_name="us-east-1").create_bucket(Bucket=sys.argv[1])
print("{}")
