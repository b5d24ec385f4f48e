"""The AsyncAPI document: every topic a channel, every message one of its models, every operation the contract's."""

from __future__ import annotations

import json

from schemas import export
from schemas.events import EVENT_MODELS
from schemas.settings import Settings
from schemas.topics import TOPICS
from tests.messages import nodes, resolve, written
from tests.strategies import PRODUCER_KINDS

TOPIC_NAMES = [topic.name for topic in TOPICS]
EVENTS = {export.event_type(model): model for model in EVENT_MODELS}


def test_every_topic_is_a_channel_as_the_broker_is_told() -> None:
    channels = written("asyncapi.json")["channels"]
    assert sorted(channels) == sorted(TOPIC_NAMES)
    for topic in TOPICS:
        channel = channels[topic.name]
        assert channel["address"] == topic.name
        kafka = channel["bindings"]["kafka"]
        assert kafka["topic"] == topic.name
        assert kafka["partitions"] == Settings().kafka.partitions
        assert kafka["topicConfiguration"] == {
            "cleanup.policy": [topic.cleanup],
            "message.timestamp.type": topic.timestamp_type,
            "retention.ms": topic.retention_ms,
        }


def test_every_channels_messages_resolve_to_the_models_of_its_topic() -> None:
    document = written("asyncapi.json")
    for topic, channel in document["channels"].items():
        names = {model.__name__ for model in export.MESSAGES[topic]}
        assert set(channel["messages"]) == (names | {"EventBatch"} if topic == "room.events" else names)
        for name, reference in channel["messages"].items():
            message = resolve(document, reference["$ref"])
            assert message["name"] == name
            assert message["contentType"] == "application/json"
            payload = resolve(document, message["payload"]["$ref"])
            assert payload["title"] == name
            key = resolve(document, message["bindings"]["$ref"])["kafka"]["key"]
            assert key["type"] == "string"


def test_the_documents_schemas_are_those_of_the_topics_files() -> None:
    document = written("asyncapi.json")
    for topic, models in export.MESSAGES.items():
        file = written(f"{topic}.json")
        of_topic = file["$defs"] if topic == "room.events" else {models[0].__name__: file, **file["$defs"]}
        for name, schema in of_topic.items():
            if name != "AnyEvent":
                renamed = json.loads(json.dumps(schema).replace("#/$defs/", "#/components/schemas/"))
                bare = {key: value for key, value in renamed.items() if key not in {"$schema", "$defs"}}
                assert document["components"]["schemas"][name] == bare


def test_every_operation_names_messages_of_its_own_channel() -> None:
    document = written("asyncapi.json")
    for operation in document["operations"].values():
        channel = operation["channel"]["$ref"]
        assert resolve(document, channel)
        assert operation["messages"]
        for reference in operation["messages"]:
            assert reference["$ref"].startswith(f"{channel}/messages/")
            assert resolve(document, reference["$ref"])


def test_the_product_sends_and_receives_what_the_contract_says() -> None:
    document = written("asyncapi.json")
    told = {
        action: {
            operation["channel"]["$ref"].removeprefix("#/channels/")
            for operation in document["operations"].values()
            if operation["action"] == action
        }
        for action in ("send", "receive")
    }
    own = {"room.signals", "room.anomalies", "bid.commands", "room.events.dlq", "audit.log", "audience.feedback"}
    assert told["receive"] == {"room.events", "bid.acks", "ops.control"}
    assert told["send"] == own | {"room.events", "ops.control", "ops.kill"}
    assert told["send"] | told["receive"] == set(TOPIC_NAMES)


def test_what_the_pipeline_alone_writes_is_no_producers_message() -> None:
    operations = written("asyncapi.json")["operations"]

    def names(operation: str) -> set[str]:
        return {reference["$ref"].rpartition("/")[2] for reference in operations[operation]["messages"]}

    assert names("sendOwnEvents") == {"TickEvent", "ControlEvent", "AckEvent"}
    assert names("receiveEvents") == {EVENTS[kind].__name__ for kind in PRODUCER_KINDS} | {"EventBatch"}


def test_nothing_in_the_documents_components_is_unused() -> None:
    document = written("asyncapi.json")
    used = {node["$ref"] for node in nodes(document) if isinstance(node.get("$ref"), str)}
    defined = {f"#/components/{kind}/{name}" for kind, named in document["components"].items() for name in named}
    assert defined <= used
