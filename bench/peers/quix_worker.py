"""The conversations worker's job in Quix Streams: deduplicate, upsert, fan out.

By its idioms: a capture a record, keyed by conversation; state per key in RocksDB with its own
changelog topic; outputs by `to_topic`; at least once. Ids are a state entry each, so that a
capture costs the same in a long conversation.
"""

import os
from typing import Any

import msgspec
from garbage import collect_rarely
from quixstreams import Application, State

NAME = "quix"
OUTPUTS = ("messages", "analysis", "replies")

decode = msgspec.msgpack.Decoder().decode
encode = msgspec.msgpack.Encoder().encode

app = Application(
    broker_address=os.environ["BOOTSTRAP"],
    consumer_group=NAME,
    auto_offset_reset="earliest",
    state_dir=os.environ["STATE_DIR"],
    processing_guarantee="at-least-once",
    producer_extra_config={"enable.idempotence": True, "acks": "all"},
    loglevel="WARNING",
)
source = app.topic(f"{NAME}-captures", value_deserializer="bytes", key_deserializer="bytes")


def take(frame: bytes, state: State) -> dict[str, bytes]:
    """Apply one capture; return what goes to each output."""
    chatbot_id, conversation_id, external_id, received_at, _, messages, fields, _ = decode(frame)
    new = []
    for at, message in enumerate(messages):
        key = f"m{message[0]}"
        if not state.exists(key):
            state.set(key, received_at + at)
            new.append((*message[:4], received_at, received_at + at))
    known: dict[str, Any] = state.get("state") or {
        "external_id": external_id,
        "revision": 0,
        "count": 0,
        "first": received_at,
        "last": received_at,
        "created": received_at,
        "fields": {},
    }
    known["revision"] = max(known["revision"] + 1, received_at)
    known["count"] += len(new)
    known["updated"] = received_at
    for message in new:
        known["first"] = min(known["first"], message[3])
        known["last"] = max(known["last"], message[3])
    for group, values in fields.items():
        known["fields"][group] = {**known["fields"].get(group, {}), **values}
    state.set("state", known)
    raw = msgspec.Raw(encode(new))
    return {
        "messages": encode((conversation_id, known, raw)),
        "analysis": encode((chatbot_id, conversation_id, raw)),
        "replies": encode(len(new)),
    }


applied = app.dataframe(source).apply(take, stateful=True)
for name in OUTPUTS:
    topic = app.topic(f"{NAME}-{name}", value_serializer="bytes", key_serializer="bytes")
    applied.apply(lambda found, name=name: found[name]).to_topic(topic)

if __name__ == "__main__":
    collect_rarely()
    app.run()
