"""Sends what its arguments say to bob, and prints what bob answers."""

import os
import sys

from iris_client import IrisClient, RecvTimeout

with IrisClient(port=int(os.environ.get("IRIS_PORT", "7400"))) as client:
    client.login("alice")
    for text in sys.argv[1:] or ["hello"]:
        client.send_reliable("bob", text)
        print(f"to bob: {text}", flush=True)
    try:
        while True:
            message = client.recv_msg(timeout=2)
            print(f"{message.sender}: {message.text}", flush=True)
    except RecvTimeout:
        print("nothing more; what bob has not read waits in his inbox", flush=True)
