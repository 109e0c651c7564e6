"""A saga participant in Python: it books shipments in place of shipping-svc.

Everything that makes a participant safe is in this file: deduplication by a key in the database, a tombstone for an
undo that comes before its command, stored answers that are sent again byte for byte, and offsets that are committed
only after every answer was acknowledged.
"""

import json
import logging
import os
import re
import signal
import sqlite3
import time
import uuid
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

log = logging.getLogger("participant")

SOURCE = "/chaos-symphony/examples/python-participant"
CARRIER = "Python Parcel"
NOT_SERVED = {"AQ"}

SCHEDULE = "shipping.requested"
CANCEL = "shipping.cancel.requested"

COUNTRY = re.compile("[A-Z]{2}")
RFC_3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
TRACEPARENT = re.compile("[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
MAX_STEP = 256

# The producer's own limit lies above that of every topic: what is too large is for the broker to say.
MAX_REQUEST_BYTES = 100_000_000
# So much of the value stays in a dead letter that even its topic refuses as too large.
KEPT_BYTES = 64 * 1024
# On a letter whose message had headers that are not in it: how many, or "all".
HEADERS_DROPPED = "dlq-headers-dropped"
# What such a letter keeps of its headers.
KEPT_HEADERS = {
    "dlq-topic",
    "dlq-partition",
    "dlq-offset",
    "dlq-timestamp",
    "dlq-consumer-group",
    "dlq-reason",
    "dlq-error",
    "dlq-attempts",
    "dlq-first-failed-at",
}


def event_type(topic: str) -> str:
    """The CloudEvents type of the only message that may be on a topic."""
    return f"com.chaossymphony.{topic}.v1"


@dataclass(frozen=True)
class Settings:
    """Where everything is; read from the environment."""

    bootstrap_servers: str
    topic_prefix: str
    group: str
    database: str
    max_batch: int

    @classmethod
    def from_environment(cls) -> "Settings":
        return cls(
            bootstrap_servers=os.environ.get("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:9092"),
            topic_prefix=os.environ.get("TOPIC_PREFIX", ""),
            group=os.environ.get("GROUP_ID", "python-shipping"),
            database=os.environ.get("DATABASE_PATH", "shipments.sqlite"),
            max_batch=int(os.environ.get("MAX_BATCH", "500")),
        )


class Poison(Exception):
    """A message that can never be processed, however often it is tried."""

    def __init__(self, reason: str, detail: str):
        super().__init__(detail)
        self.reason = reason


@dataclass(frozen=True)
class Command:
    """A command of a saga, with what its answer must repeat."""

    topic: str
    id: str
    saga: uuid.UUID
    step: str
    order_id: str
    traceparent: str | None
    value: dict


def headers_of(message: Message) -> list[tuple[str, bytes]] | None:
    """The headers, or None when the name of one is not UTF-8: then the client can read none of them.

    To be asked once a message: after such a failure the client would give half a list.
    """
    try:
        return message.headers() or []
    except (SystemError, UnicodeDecodeError):
        return None


def envelope(message: Message, raw_headers: list[tuple[str, bytes]] | None) -> dict[str, str]:
    """The CloudEvents attributes, checked as every consumer of the platform checks them."""
    if raw_headers is None:
        raise Poison("invalid-header", "the name of a header is not UTF-8")
    try:
        key = (message.key() or b"").decode()
    except UnicodeDecodeError as error:
        raise Poison("invalid-key", str(error)) from error
    if not key:
        raise Poison("invalid-key", "the message has no key")
    headers = {}
    for name, value in raw_headers:
        try:
            headers[name] = (value or b"").decode()
        except UnicodeDecodeError:  # a header that is no text is none
            headers.pop(name, None)
    for name in ("ce_specversion", "ce_subject", "ce_id", "ce_type", "ce_source", "ce_time", "ce_sagaid", "ce_step"):
        if not headers.get(name):
            raise Poison("missing-header", f"the header {name} is missing")
    if headers["ce_specversion"] != "1.0":
        raise Poison("unsupported-specversion", f"ce_specversion is {headers['ce_specversion']!r}, not '1.0'")
    if headers["ce_subject"] != key:
        raise Poison("key-subject-mismatch", f"the key is {key!r} but ce_subject is {headers['ce_subject']!r}")
    try:
        for name in ("ce_id", "ce_sagaid"):
            uuid.UUID(headers[name])
        if not RFC_3339.fullmatch(headers["ce_time"]):
            raise ValueError(f"ce_time is {headers['ce_time']!r}, not an RFC 3339 time")
        if len(headers["ce_step"]) > MAX_STEP:
            raise ValueError(f"ce_step has {len(headers['ce_step'])} characters")
    except ValueError as error:
        raise Poison("invalid-header", str(error)) from error
    if not TRACEPARENT.fullmatch(headers.get("traceparent", "")):
        headers.pop("traceparent", None)  # what cannot be traced is processed all the same
    return headers


def decode(topic: str, message: Message, raw_headers: list[tuple[str, bytes]] | None) -> Command:
    """Reads a command, or says why it never can be one."""
    headers = envelope(message, raw_headers)
    if headers["ce_type"] != event_type(topic):
        raise Poison("unexpected-type", f"{headers['ce_type']!r} does not belong on {topic}")
    if not message.value():
        raise Poison("empty-payload", "the message has no value")
    try:
        value = json.loads(message.value())
        order_id = str(uuid.UUID(value["orderId"]))
        # Whatever the answer repeats is checked, so that no command can make an answer that no topic takes.
        if topic == SCHEDULE and not COUNTRY.fullmatch(value["country"]):
            raise ValueError("country is not an ISO 3166-1 alpha-2 code")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Poison("invalid-json", f"{type(error).__name__}: {error}") from error
    if order_id != headers["ce_subject"]:
        raise Poison("subject-mismatch", f"the value is about {order_id} but ce_subject is {headers['ce_subject']!r}")
    saga, trace = uuid.UUID(headers["ce_sagaid"]), headers.get("traceparent")
    return Command(topic, headers["ce_id"], saga, headers["ce_step"], order_id, trace, value)


class Shipments:
    """The shipments of all orders: one row an order, which is also what makes a repetition harmless."""

    def __init__(self, path: str):
        self.connection = sqlite3.connect(path, isolation_level=None)
        self.connection.row_factory = sqlite3.Row
        # A commit is on the disk before the next line runs: what was answered survives a crash.
        self.connection.execute("PRAGMA journal_mode = WAL")
        self.connection.execute("PRAGMA synchronous = FULL")
        self.connection.execute(
            """CREATE TABLE IF NOT EXISTS shipments (
                order_id      TEXT PRIMARY KEY,
                state         TEXT NOT NULL CHECK (state IN ('SCHEDULED', 'FAILED', 'CANCELLED', 'REFUSED')),
                shipment_id   TEXT,
                tracking_code TEXT,
                reason        TEXT,
                answered_at   TEXT NOT NULL,
                undone_at     TEXT,
                CHECK ((state IN ('SCHEDULED', 'CANCELLED')) = (shipment_id IS NOT NULL)),
                CHECK (state NOT IN ('CANCELLED', 'REFUSED') OR undone_at IS NOT NULL)
            ) STRICT"""
        )

    @contextmanager
    def transaction(self):
        """Everything inside happens, or nothing."""
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self.connection.execute("COMMIT")
        except BaseException:
            self.connection.execute("ROLLBACK")
            raise

    def schedule(self, order_id: str, country: str) -> sqlite3.Row:
        """Books once. Finds the row of an earlier booking, or the tombstone of an undo that came first."""
        served = country not in NOT_SERVED
        self.connection.execute(
            """INSERT INTO shipments (order_id, state, shipment_id, tracking_code, reason, answered_at)
               VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING""",
            (
                order_id,
                "SCHEDULED" if served else "FAILED",
                str(uuid.uuid5(uuid.UUID(order_id), "shipment")) if served else None,
                f"PY{uuid.uuid5(uuid.UUID(order_id), 'tracking code').hex[:12].upper()}" if served else None,
                None if served else f"country {country} is not served",
                now(),
            ),
        )
        return self.stored(order_id)

    def cancel(self, order_id: str) -> sqlite3.Row:
        """Cancels once. Without a booking it leaves a tombstone, which refuses the booking that comes later."""
        self.connection.execute(
            """INSERT INTO shipments (order_id, state, answered_at, undone_at) VALUES (:order, 'REFUSED', :now, :now)
               ON CONFLICT DO UPDATE SET
                   state = CASE state WHEN 'SCHEDULED' THEN 'CANCELLED' ELSE state END, undone_at = :now
               WHERE undone_at IS NULL""",
            {"order": order_id, "now": now()},
        )
        return self.stored(order_id)

    def stored(self, order_id: str) -> sqlite3.Row:
        return self.connection.execute("SELECT * FROM shipments WHERE order_id = ?", (order_id,)).fetchone()


def now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="microseconds").replace("+00:00", "Z")


def answer(command: Command, shipments: Shipments) -> dict:
    """Applies a command and makes its answer from the stored row alone: the same row gives the same bytes."""
    if command.topic == CANCEL:
        row = shipments.cancel(command.order_id)
        topic, direction, stored_at = "shipping.cancelled", "undo", row["undone_at"]
        value = {"orderId": command.order_id}
    else:
        row = shipments.schedule(command.order_id, command.value["country"])
        direction, stored_at = "do", row["answered_at"]
        if row["shipment_id"] is not None:  # the answer stays what it was, also after the undo
            topic = "shipping.scheduled"
            value = {
                "orderId": command.order_id,
                "shipmentId": row["shipment_id"],
                "carrier": CARRIER,
                "trackingCode": row["tracking_code"],
            }
        else:
            topic = "shipping.failed"
            reason = row["reason"] or "shipment refused: it was cancelled before it was booked"
            value = {"orderId": command.order_id, "reason": reason}
    headers = {
        "ce_specversion": "1.0",
        # No attempt number and no randomness: what is sent again is the same message.
        "ce_id": str(uuid.uuid5(command.saga, f"{command.step}/{direction}/reply")),
        "ce_type": event_type(topic),
        "ce_source": SOURCE,
        "ce_subject": command.order_id,
        "ce_time": stored_at,
        "ce_sagaid": str(command.saga),
        "ce_step": command.step,
        "ce_causationid": command.id,
        "content-type": "application/json",
    }
    if command.traceparent:
        headers["traceparent"] = command.traceparent
    payload = json.dumps(value, separators=(",", ":")).encode()
    return {"topic": topic, "key": command.order_id.encode(), "value": payload, "headers": list(headers.items())}


def dead_letter(topic: str, message: Message, headers: list | None, poison: Poison, group: str) -> dict:
    """The message as it came, with its cause in text headers."""
    original = [(HEADERS_DROPPED, "all")] if headers is None else headers
    cause = {
        "dlq-topic": topic,
        "dlq-partition": str(message.partition()),
        "dlq-offset": str(message.offset()),
        "dlq-timestamp": str(message.timestamp()[1]),
        "dlq-consumer-group": group,
        "dlq-reason": poison.reason,
        "dlq-error": str(poison)[:2000],
        "dlq-attempts": "1",
        "dlq-first-failed-at": now(),
    }
    letter = {"topic": f"{topic}.dlq", "key": message.key(), "value": message.value()}
    return letter | {"headers": original + list(cause.items())}


def shortened(letter: dict) -> dict:
    """The last resort for a dead letter that its topic refuses: its cause, and the start of the value.

    `dlq-topic`, `dlq-partition` and `dlq-offset` say where the original is while it is retained. Of each name only the
    last header stays, which is ours: a message may have brought some of any size.
    """
    headers = [(name, value) for name, value in dict(letter["headers"]).items() if name in KEPT_HEADERS]
    if letter["headers"][0] == (HEADERS_DROPPED, "all"):
        headers.append((HEADERS_DROPPED, "all"))
    headers.append(("dlq-truncated-from", str(len(letter["value"] or b""))))
    start = {name: letter[name][:KEPT_BYTES] if letter[name] else letter[name] for name in ("key", "value")}
    return letter | start | {"headers": headers}


def again(message: dict, error: KafkaError) -> dict:
    """What to send when `message` was not acknowledged: itself, or less of a dead letter that is too large."""
    too_large = error.code() == KafkaError.MSG_SIZE_TOO_LARGE
    return shortened(message) if too_large and message["topic"].endswith(".dlq") else message


class Participant:
    """Batches in, one transaction, answers out, offsets last."""

    def __init__(self, settings: Settings):
        self.settings = settings
        self.stopping = False
        self.shipments = Shipments(settings.database)
        client = {"bootstrap.servers": settings.bootstrap_servers}
        self.producer = Producer(
            # The partitioner of every client of the platform: one order is on one partition number everywhere.
            client
            | {
                "acks": "all",
                "enable.idempotence": True,
                "partitioner": "murmur2_random",
                "linger.ms": 1,
                # A dead letter may carry what arrived compressed.
                "compression.type": "lz4",
                "message.max.bytes": MAX_REQUEST_BYTES,
            }
        )
        self.consumer = Consumer(
            client
            | {
                "group.id": settings.topic_prefix + settings.group,
                "auto.offset.reset": "earliest",
                "enable.auto.commit": False,
                "partition.assignment.strategy": "range",
                "session.timeout.ms": 6000,
            }
        )

    def run(self) -> None:
        topics = [self.settings.topic_prefix + topic for topic in (SCHEDULE, CANCEL)]
        self.consumer.subscribe(topics, on_assign=lambda _, owned: log.info("owns %d partitions", len(owned)))
        try:
            while not self.stopping:
                messages = self.poll()
                if messages:
                    self.handle(messages)
        finally:
            self.consumer.close()

    def poll(self) -> list[Message]:
        """Whatever is ready: waits for the first message, never for more."""
        first = self.consumer.poll(1.0)
        if first is None:
            return []
        messages = []
        for message in [first, *self.consumer.consume(self.settings.max_batch - 1, timeout=0)]:
            if message.error() is None:
                messages.append(message)
            else:
                log.warning("kafka: %s", message.error())
        return messages

    def handle(self, messages: list[Message]) -> None:
        answers, letters = [], []
        with self.shipments.transaction():
            for message in messages:
                topic = message.topic().removeprefix(self.settings.topic_prefix)
                headers = headers_of(message)
                try:
                    answers.append(answer(decode(topic, message, headers), self.shipments))
                except Poison as poison:
                    log.error("%s[%d]@%d: %s", topic, message.partition(), message.offset(), str(poison)[:2000])
                    letters.append(dead_letter(topic, message, headers, poison, self.settings.group))
        for letter in letters:  # one by one: they are rare, and one that is too large must not take others along
            self.publish([letter])
        self.publish(answers)
        self.commit(messages)

    def publish(self, outgoing: list[dict]) -> None:
        """Returns when every message was acknowledged; sends those again that were not."""
        while outgoing:
            failed = []
            for message in outgoing:
                prefixed = message | {"topic": self.settings.topic_prefix + message["topic"]}

                def delivered(error, _, message=message):
                    if error is not None:
                        log.warning("not acknowledged, sending again: %s", error)
                        failed.append(again(message, error))

                while True:
                    try:
                        self.producer.produce(**prefixed, on_delivery=delivered)
                        break
                    except BufferError:
                        self.producer.poll(0.1)
                    except KafkaException as error:  # refused before it was sent
                        delivered(error.args[0], None)
                        break
            self.producer.flush()
            outgoing = failed
            if failed:
                time.sleep(0.1)

    def commit(self, messages: list[Message]) -> None:
        next_offsets = {(message.topic(), message.partition()): message.offset() + 1 for message in messages}
        try:
            offsets = [TopicPartition(topic, partition, offset) for (topic, partition), offset in next_offsets.items()]
            self.consumer.commit(offsets=offsets, asynchronous=False)
        except KafkaException as error:
            # The partitions went to another member, which gets the messages again: no harm, they are duplicates.
            log.warning("offsets were not committed: %s", error)

    def stop(self, *_) -> None:
        self.stopping = True


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    participant = Participant(Settings.from_environment())
    signal.signal(signal.SIGTERM, participant.stop)
    signal.signal(signal.SIGINT, participant.stop)
    participant.run()


if __name__ == "__main__":
    main()
