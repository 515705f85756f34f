"""Prints the events of all clusters. An example of a durable consumer in Python.

    python -m venv venv && . venv/bin/activate && pip install -r examples/requirements.txt
    python -m grpc_tools.protoc -I proto --python_out . proto/tidings/v1/event.proto
    PYTHONPATH=. python examples/consumers/python/consumer.py NATS_URL NAME [START]

NAME is the durable consumer: a process that starts again continues after the last event that it
acknowledged. START is a time such as 2026-01-02T15:04:05Z, default: the oldest stored event. It
counts at the first start only. The variables NATS_CREDS and FILTER name a credentials file and the
events to read, as `tidings fleet add-tap` prints them; that needs `pip install "nats-py[nkeys]"`.
"""
import asyncio, os, sys

import nats
from google.protobuf.message import DecodeError
from nats.js.api import ConsumerConfig, DeliverPolicy
from tidings.v1.event_pb2 import Event


async def follow(url, name, start=None):
    credentials = os.environ.get("NATS_CREDS")
    client = await nats.connect(url, user_credentials=credentials, max_reconnect_attempts=-1)
    config = ConsumerConfig(ack_wait=10)
    if start:
        config.deliver_policy = DeliverPolicy.BY_START_TIME
        config.opt_start_time = start
    jetstream = client.jetstream()
    subject = os.environ.get("FILTER", "events.>")
    events = await jetstream.pull_subscribe(subject, name, stream="EVENTS", config=config)
    while True:
        try:
            messages = await events.fetch(100, timeout=5)
        except asyncio.TimeoutError:  # no new event within 5 s
            continue
        for message in messages:
            try:
                event = Event.FromString(message.data)
                source = event.involved_object
                place = f"{source.namespace}/{source.name}"
                text = f"{place}: {event.message!r}"
                # Only the subject proves which cluster published an event, not its body.
                cluster = message.subject.split(".")[1]
                print(event.id, cluster, source.kind, text, flush=True)
            except DecodeError as error:
                print(f"no event: {error}", file=sys.stderr)
            # Only now: an event that is not acknowledged is delivered again after ack_wait.
            await message.ack()


asyncio.run(follow(*sys.argv[1:]))
