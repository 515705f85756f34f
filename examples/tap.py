"""Follows the events of all clusters, as `tidings tap` does, and shows how a consumer in any language can.

    python -m venv venv && . venv/bin/activate && pip install -r examples/requirements.txt
    python -m grpc_tools.protoc -I proto --python_out . proto/tidings/v1/event.proto
    PYTHONPATH=. python examples/tap.py [NATS.JSON]      # what `tidings up` writes into its data folder
"""
import asyncio, json, sys

import nats
from tidings.v1.event_pb2 import Event


async def follow(contact):
    client = await nats.connect(contact["url"], token=contact["token"])
    # Beginning with the oldest that is kept. An ordered consumer leaves nothing on the server, and slows nobody.
    events = await client.jetstream().subscribe("events.>", stream="EVENTS", ordered_consumer=True)
    async for message in events.messages:
        event = Event.FromString(message.data)
        about = event.involved_object
        print(event.cluster, event.severity, about.kind, f"{about.namespace}/{about.name}: {event.message}", flush=True)


with open(sys.argv[1] if len(sys.argv) > 1 else ".tidings/nats.json") as file:
    asyncio.run(follow(json.load(file)))
