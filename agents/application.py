"""The Faust application, without agents, set up for one deployment and broker."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Final

import faust
from yarl import URL

from agents.config import broker_of
from agents.errors import UsageError
from agents.kafka import MAX_SNAPSHOT_BYTES, Cluster
from agents.layout import Layout
from agents.tables import Tables
from agents.transport import EMBEDDED_FETCH_WAIT_MS, FETCH_WAIT_MS, ChunkTransport, PatientAssignor
from schemas.settings import Settings

QUEUED_CHUNKS: Final = 16
"""Chunks waiting for one agent before fetching pauses: at most a few MiB a partition.

A setting of the application: Faust's `app.topic` takes a `maxsize` and forgets it.
"""
REQUEST_MARGIN_S: Final = 5.0
"""Beyond the longest answer that a broker may owe a consumer; Faust's own 90 s would stall a worker as long."""


def make_app(settings: Settings, cluster: Cluster) -> faust.App:
    """Return a Faust application without agents, set up for this deployment and broker."""
    kafka, worker = settings.kafka, settings.worker
    _make_folder(worker.data_dir)
    app = faust.App(
        kafka.app_id,
        broker=broker_of(settings).replace(",", ";kafka://"),
        store="memory://",
        datadir=worker.data_dir,
        autodiscover=False,
        key_serializer="raw",
        value_serializer="raw",
        topic_partitions=cluster.n_partitions,
        topic_replication_factor=kafka.replication_factor,
        topic_allow_declare=False,  # `provision` makes topics; an embedded broker makes them by itself
        topic_disable_leader=True,
        stream_wait_empty=False,  # the rooms' own snapshots say what is done
        broker_client_id="roompulse",
        broker_session_timeout=kafka.session_timeout_s,
        broker_heartbeat_interval=kafka.heartbeat_interval_s,
        broker_rebalance_timeout=kafka.rebalance_timeout_s,
        broker_commit_interval=1.0,
        # A broker that is silent for longer is asked no more; joins wait for the whole rebalance.
        broker_request_timeout=max(kafka.session_timeout_s, kafka.rebalance_timeout_s) + REQUEST_MARGIN_S,
        consumer_auto_offset_reset="earliest",
        producer_max_request_size=MAX_SNAPSHOT_BYTES,
        stream_buffer_maxsize=QUEUED_CHUNKS,
        web_enabled=worker.web_port != 0,
        web_bind="127.0.0.1",
        web_port=worker.web_port or 6066,
        # Members are told apart by their addresses, also where no page is served.
        canonical_url=URL(f"http://{socket.gethostname()}-{os.getpid()}"),
        worker_redirect_stdouts=False,
        table_standby_replicas=worker.standby_replicas,
        TableManager=Tables,
        PartitionAssignor=PatientAssignor if cluster.embedded else "faust.assignor:PartitionAssignor",
    )
    transport = ChunkTransport(app.conf.broker_consumer or app.conf.broker, app)
    transport.fetch_wait_ms = EMBEDDED_FETCH_WAIT_MS if cluster.embedded else FETCH_WAIT_MS
    transport.commit_note = Layout(cluster.n_partitions).note()
    app.transport = transport
    return app


def _make_folder(data_dir: str) -> None:
    """Make the folder Faust asks for; nothing that matters is ever in it."""
    try:
        Path(data_dir).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        msg = f"worker.data_dir must be a folder that can be made, got {data_dir}: {error.strerror}"
        raise UsageError(msg) from None
