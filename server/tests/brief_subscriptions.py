"""The emulator, whose subscriptions to shards last three seconds instead of five minutes, so that a test sees them end.

    python brief_subscriptions.py         takes the environment of ministack
"""

from ministack import app
from ministack.services import kinesis

kinesis.SUBSCRIPTION_SECONDS = 3

if __name__ == "__main__":
    app.main()
