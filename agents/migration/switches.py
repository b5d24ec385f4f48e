"""Rooms' kill switches, which have to stand where their next change will."""

from __future__ import annotations

from collections.abc import Callable

import orjson

from agents.kafka import partition_of
from agents.migration.client import Client
from schemas.topics import OPS_KILL


def carry_switches(client: Client, n_before: int, to: int, grow: Callable[[], None]) -> None:
    """Write each room's kill switch where its next change will stand.

    One that is on is left in its old partition too, so that no reader, in whatever order it reads, ever takes it
    for off; one that is off is removed there. `grow` lets the topic have all its partitions.
    """
    begins = client.begins(OPS_KILL, n_before)
    newest: dict[bytes, tuple[int, int, bytes]] = {}
    places: dict[bytes, dict[int, bytes]] = {}
    for number, end in client.ends(OPS_KILL, n_before).items():
        for batch in client.read(OPS_KILL, number, begins[number], end):
            for record in batch:
                places.setdefault(record.key, {})[number] = record.value or b""
    for key, values in places.items():
        said = [(orjson.loads(value)["ts"], number, value) for number, value in values.items() if value]
        if said:
            newest[key] = max(said)
    grow()
    for key, (_, _, value) in newest.items():
        home = partition_of(key.decode(), to)
        if places[key].get(home) != value:
            client.send(OPS_KILL, key, value, home)
        client.flush()
        if not orjson.loads(value)["on"]:
            for number, old in places[key].items():
                if number != home and old:
                    client.send(OPS_KILL, key, None, number)
    client.flush()
