"""Prints the events of all clusters, like `tidings tap`. An example of a consumer in any language.

    python -m venv venv && . venv/bin/activate && pip install -r examples/requirements.txt
    python -m grpc_tools.protoc -I proto --python_out . proto/tidings/v1/event.proto
    PYTHONPATH=. python examples/tap.py [NATS.JSON]

NATS.JSON is the file that `tidings up` writes into its data folder. Default: .tidings/nats.json.
"""
import asyncio, json, sys

import nats
from tidings.v1.event_pb2 import Event


async def follow(contact):
    client = await nats.connect(contact["url"], token=contact["token"])
    # Starts with the oldest stored event. An ordered consumer is ephemeral and needs no acks.
    jetstream = client.jetstream()
    events = await jetstream.subscribe("events.>", stream="EVENTS", ordered_consumer=True)
    async for message in events.messages:
        event = Event.FromString(message.data)
        source = event.involved_object
        name = f"{source.namespace}/{source.name}"
        print(event.cluster, event.severity, source.kind, f"{name}: {event.message}", flush=True)


with open(sys.argv[1] if len(sys.argv) > 1 else ".tidings/nats.json") as file:
    asyncio.run(follow(json.load(file)))
