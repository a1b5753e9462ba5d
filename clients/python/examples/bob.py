"""Prints and answers every message. What comes while it is not running waits in its inbox."""

import os

from iris_client import IrisClient

with IrisClient(port=int(os.environ.get("IRIS_PORT", "7400"))) as client:
    client.login("bob")
    print(f"bob is logged in, {client.info.waiting} messages wait", flush=True)
    for message in client:
        print(f"{message.sender}: {message.text}", flush=True)
        client.send_reliable(message.sender, f"got {message.text!r}")
