"""Prints the events of all clusters, like `tidings tap`. An example of a consumer in any language.

    python -m venv venv && . venv/bin/activate && pip install -r examples/requirements.txt
    python -m grpc_tools.protoc -I proto --python_out . proto/tidings/v1/event.proto
    PYTHONPATH=. python examples/tap.py [NATS.JSON]

NATS.JSON is the file that `tidings up` writes into its data folder. Default: .tidings/nats.json.
"""
import asyncio, hashlib, json, re, sys

import nats
from google.protobuf.message import DecodeError
from tidings.v1.event_pb2 import Event


def token(name):
    """Encodes a name as it is in subjects."""
    text = re.sub(rb"[^A-Za-z0-9_-]", lambda byte: b"=%02X" % byte[0][0], name.encode()).decode()
    if len(text) > 100:
        text = f"{text[:60]}=h{hashlib.sha256(name.encode()).hexdigest()[:16]}"
    return text or "="


def read(message):
    """Decodes an event. Only the subject proves which cluster published it, not the body."""
    try:
        event = Event.FromString(message.data)
    except DecodeError:
        return None
    return event if event.id and token(event.cluster) == message.subject.split(".")[1] else None


async def follow(contact):
    client = await nats.connect(contact["url"], token=contact["token"])
    # Starts with the oldest stored event. An ordered consumer is ephemeral and needs no acks.
    jetstream = client.jetstream()
    events = await jetstream.subscribe("events.>", stream="EVENTS", ordered_consumer=True)
    async for message in events.messages:
        if not (event := read(message)):
            print(f"skipped: the message on {message.subject} is not its own", file=sys.stderr)
            continue
        source = event.involved_object
        name = f"{source.namespace}/{source.name}"
        print(event.cluster, event.severity, source.kind, f"{name}: {event.message}", flush=True)


with open(sys.argv[1] if len(sys.argv) > 1 else ".tidings/nats.json") as file:
    asyncio.run(follow(json.load(file)))
