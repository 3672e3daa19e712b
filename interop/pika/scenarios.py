"""The tutorials and everyday features, through pika's blocking connection."""

import os
import threading
import time
import uuid
from queue import Queue

import pika
from pika.exceptions import (
    AMQPError,
    ChannelClosedByBroker,
    NackError,
    UnroutableError,
)

from broker import own_broker
from report import Report

PERSISTENT = pika.BasicProperties(delivery_mode=2)


def connect(url=os.environ["AMQP_URL"]):
    return pika.BlockingConnection(pika.URLParameters(url))


def unique(name):
    return f"{name}-{uuid.uuid4().hex[:12]}"


def collect(channel, queue, count, auto_ack=True, seconds_max=5):
    """The first `count` messages of a queue as (method, properties, body), fewer if the time is over."""
    messages = []
    for method, properties, body in channel.consume(queue, auto_ack=auto_ack, inactivity_timeout=seconds_max):
        if method is None:
            break
        messages.append((method, properties, body))
        if len(messages) == count:
            break
    channel.cancel()
    return messages


def bodies(messages):
    return [body for _, _, body in messages]


def expect(found, expected):
    assert found == expected, f"found {found!r}, expected {expected!r}"


def expect_closed(code, action):
    """The action makes the broker close the channel with this code."""
    try:
        action()
    except ChannelClosedByBroker as closed:
        expect(closed.reply_code, code)
    else:
        raise AssertionError(f"no close with {code}")


def work_queue(connection):
    queue = unique("work")
    channel = connection.channel()
    channel.queue_declare(queue, durable=True)
    for number in range(10):
        channel.basic_publish("", queue, b"task %d" % number, PERSISTENT)

    done = {"first": [], "second": []}

    def worker(name):
        worker_channel = connection.channel()
        worker_channel.basic_qos(prefetch_count=1)

        def on_task(_, method, __, body):
            done[name].append(body)
            # The second worker is busy with its first task until the end.
            if name == "first":
                worker_channel.basic_ack(method.delivery_tag)

        worker_channel.basic_consume(queue, on_task)
        return worker_channel

    worker("second")
    connection.process_data_events(0.5)
    worker("first")
    deadline = time.monotonic() + 5
    while len(done["first"]) < 9 and time.monotonic() < deadline:
        connection.process_data_events(0.1)
    expect(done, {"first": [b"task %d" % number for number in range(1, 10)], "second": [b"task 0"]})
    channel.queue_delete(queue)


def publish_subscribe(connection):
    channel = connection.channel()
    exchange = unique("logs")
    channel.exchange_declare(exchange, "fanout")
    queues = [channel.queue_declare("", exclusive=True).method.queue for _ in range(2)]
    for queue in queues:
        channel.queue_bind(queue, exchange)
    channel.basic_publish(exchange, "ignored", b"to all")
    for queue in queues:
        expect(bodies(collect(channel, queue, 1)), [b"to all"])
    channel.exchange_delete(exchange)


def routing(connection):
    channel = connection.channel()
    exchange = unique("direct_logs")
    channel.exchange_declare(exchange, "direct")
    queue = channel.queue_declare("", exclusive=True).method.queue
    for severity in ["warning", "error"]:
        channel.queue_bind(queue, exchange, severity)
    for severity in ["info", "warning", "error"]:
        channel.basic_publish(exchange, severity, severity.encode())
    expect(bodies(collect(channel, queue, 2)), [b"warning", b"error"])
    channel.queue_unbind(queue, exchange, "warning")
    for severity in ["warning", "error"]:
        channel.basic_publish(exchange, severity, severity.encode())
    expect(bodies(collect(channel, queue, 1)), [b"error"])
    channel.exchange_delete(exchange)


def topics(connection):
    channel = connection.channel()
    exchange = unique("topic_logs")
    channel.exchange_declare(exchange, "topic")
    keys = ["kern.critical", "kern.info", "cron.critical", "kern", "kern.disk.critical", ""]
    matching = {
        "#": keys,
        "kern.*": ["kern.critical", "kern.info"],
        "*.critical": ["kern.critical", "cron.critical"],
        "kern.#": ["kern.critical", "kern.info", "kern", "kern.disk.critical"],
        "#.critical": ["kern.critical", "cron.critical", "kern.disk.critical"],
    }
    queues = {}
    for pattern in matching:
        queues[pattern] = channel.queue_declare("", exclusive=True).method.queue
        channel.queue_bind(queues[pattern], exchange, pattern)
    for key in keys:
        channel.basic_publish(exchange, key, key.encode())
    for pattern, expected in matching.items():
        expect(bodies(collect(channel, queues[pattern], len(expected))), [key.encode() for key in expected])
    channel.exchange_delete(exchange)


def rpc(connection):
    server = connection.channel()
    requests = server.queue_declare("", exclusive=True).method.queue

    def on_request(channel, method, properties, body):
        answer = pika.BasicProperties(correlation_id=properties.correlation_id)
        channel.basic_publish("", properties.reply_to, b"%d" % (int(body) ** 2), answer)
        channel.basic_ack(method.delivery_tag)

    server.basic_consume(requests, on_request)
    client = connection.channel()
    replies = {}
    for reply_queue in [client.queue_declare("", exclusive=True).method.queue, "amq.rabbitmq.reply-to"]:
        client.basic_consume(
            reply_queue,
            lambda _, __, properties, body: replies.update({properties.correlation_id: body}),
            auto_ack=True,
        )
        call = pika.BasicProperties(reply_to=reply_queue, correlation_id=reply_queue)
        client.basic_publish("", requests, b"12", call)
        deadline = time.monotonic() + 5
        while reply_queue not in replies and time.monotonic() < deadline:
            connection.process_data_events(0.1)
        expect(replies[reply_queue], b"144")


def publisher_confirms(connection):
    channel = connection.channel()
    queue = channel.queue_declare("", exclusive=True).method.queue
    channel.confirm_delivery()
    for number in range(100):
        channel.basic_publish("", queue, b"%d" % number, PERSISTENT)
    expect(channel.queue_declare(queue, passive=True).method.message_count, 100)


def mandatory_return(connection):
    channel = connection.channel()
    channel.confirm_delivery()
    try:
        channel.basic_publish("", unique("nowhere"), b"lost", mandatory=True)
    except UnroutableError as error:
        (message,) = error.messages
        expect((message.method.reply_code, message.method.reply_text, message.body), (312, "NO_ROUTE", b"lost"))
    else:
        raise AssertionError("an unroutable message was not returned")
    # Not mandatory: confirmed and dropped.
    channel.basic_publish("", unique("nowhere"), b"lost")


def dead_letters(connection):
    channel = connection.channel()
    exchange = unique("dlx")
    channel.exchange_declare(exchange, "fanout")
    dead = channel.queue_declare("", exclusive=True).method.queue
    channel.queue_bind(dead, exchange)
    source = channel.queue_declare(
        "", exclusive=True, arguments={"x-dead-letter-exchange": exchange, "x-message-ttl": 100}
    ).method.queue
    channel.basic_publish("", source, b"late")
    channel.basic_publish("", source, b"later", pika.BasicProperties(expiration="50"))
    messages = collect(channel, dead, 2)
    expect(sorted(bodies(messages)), [b"late", b"later"])
    for _, properties, _ in messages:
        (death,) = properties.headers["x-death"]
        expect((death["queue"], death["reason"], death["count"], death["exchange"]), (source, "expired", 1, ""))
        expect(death["routing-keys"], [source])

    channel.basic_publish("", source, b"bad")
    method, _, _ = channel.basic_get(source)
    channel.basic_reject(method.delivery_tag, requeue=False)
    ((_, properties, body),) = collect(channel, dead, 1)
    expect((body, properties.headers["x-death"][0]["reason"]), (b"bad", "rejected"))
    expect(properties.headers["x-first-death-reason"], "rejected")
    channel.exchange_delete(exchange)


def priority(connection):
    channel = connection.channel()
    queue = channel.queue_declare("", exclusive=True, arguments={"x-max-priority": 5}).method.queue
    for number, level in enumerate([0, 5, 3, None, 5, 9]):
        channel.basic_publish("", queue, b"%d" % number, pika.BasicProperties(priority=level))
    # Above the maximum counts as the maximum; none counts as 0.
    expect(bodies(collect(channel, queue, 6)), [b"1", b"4", b"5", b"2", b"0", b"3"])


def headers_exchange(connection):
    channel = connection.channel()
    exchange = unique("headers")
    channel.exchange_declare(exchange, "headers")
    queues = {}
    for match in ["all", "any"]:
        queues[match] = channel.queue_declare("", exclusive=True).method.queue
        channel.queue_bind(
            queues[match], exchange, arguments={"x-match": match, "format": "pdf", "pages": 2}
        )
    for name, headers in {
        b"both": {"format": "pdf", "pages": 2, "other": True},
        b"one": {"format": "pdf", "pages": 3},
        b"none": {"format": "zip"},
    }.items():
        channel.basic_publish(exchange, "", name, pika.BasicProperties(headers=headers))
    expect(bodies(collect(channel, queues["all"], 1)), [b"both"])
    expect(bodies(collect(channel, queues["any"], 2)), [b"both", b"one"])
    expect(channel.queue_declare(queues["all"], passive=True).method.message_count, 0)
    channel.exchange_delete(exchange)


def get(connection):
    channel = connection.channel()
    queue = channel.queue_declare("", exclusive=True).method.queue
    expect(channel.basic_get(queue), (None, None, None))
    for number in range(3):
        channel.basic_publish("", queue, b"%d" % number)
    method, _, body = channel.basic_get(queue, auto_ack=True)
    expect((method.message_count, method.redelivered, method.routing_key, body), (2, False, queue, b"0"))
    expect(channel.queue_purge(queue).method.message_count, 2)
    expect(channel.queue_delete(queue).method.message_count, 0)


def nack_requeue(connection):
    channel = connection.channel()
    queue = channel.queue_declare("", exclusive=True).method.queue
    for number in range(4):
        channel.basic_publish("", queue, b"%d" % number)
    first = [channel.basic_get(queue)[0] for _ in range(4)]
    expect([method.redelivered for method in first], [False] * 4)
    channel.basic_nack(first[-1].delivery_tag, multiple=True, requeue=True)
    again = [channel.basic_get(queue) for _ in range(4)]
    expect([(method.redelivered, body) for method, _, body in again], [(True, b"%d" % n) for n in range(4)])
    channel.basic_nack(again[1][0].delivery_tag, multiple=True, requeue=True)
    channel.basic_nack(again[2][0].delivery_tag, requeue=False)
    channel.basic_ack(again[3][0].delivery_tag)
    expect(bodies(collect(channel, queue, 2)), [b"0", b"1"])
    expect(channel.basic_get(queue)[0], None)


def unsettled_return(connection):
    """What a lost channel held is delivered again, in its old place."""
    queue = unique("held")
    keeper = connection.channel()
    keeper.queue_declare(queue, durable=True)
    for number in range(3):
        keeper.basic_publish("", queue, b"%d" % number)
    other = connect()
    channel = other.channel()
    for _ in range(2):
        channel.basic_get(queue)
    other.close()
    messages = collect(keeper, queue, 3)
    expect([(m.redelivered, body) for m, _, body in messages], [(True, b"0"), (True, b"1"), (False, b"2")])
    keeper.queue_delete(queue)


def exclusive_and_auto_delete(connection):
    channel = connection.channel()
    queue = channel.queue_declare("", exclusive=True).method.queue
    assert queue.startswith("amq.gen-"), queue
    stranger = connect()
    expect_closed(405, lambda: stranger.channel().queue_declare(queue, passive=True))
    expect_closed(405, lambda: stranger.channel().basic_consume(queue, lambda *_: None))

    shared = unique("auto")
    channel.queue_declare(shared, auto_delete=True)
    tag = channel.basic_consume(shared, lambda *_: None)
    channel.basic_cancel(tag)
    expect_closed(404, lambda: connection.channel().queue_declare(shared, passive=True))

    mine = stranger.channel().queue_declare("", exclusive=True).method.queue
    stranger.close()
    expect_closed(404, lambda: connection.channel().queue_declare(mine, passive=True))

    exchange = unique("auto")
    channel.exchange_declare(exchange, "fanout", auto_delete=True)
    channel.queue_bind(queue, exchange)
    channel.queue_unbind(queue, exchange)
    expect_closed(404, lambda: connection.channel().exchange_declare(exchange, passive=True))


def properties_survive(connection):
    channel = connection.channel()
    queue = channel.queue_declare("", exclusive=True).method.queue
    sent = pika.BasicProperties(
        content_type="text/plain",
        content_encoding="utf-8",
        headers={
            "text": "häuser", "int": 7, "big": 2**40, "negative": -5, "yes": True, "none": None,
            "list": [1, "two", {"three": 3}], "table": {"inner": {"deep": "x"}}, "bytes": b"\x00\xff",
        },
        delivery_mode=1, priority=3, correlation_id="c", reply_to="r", expiration="60000", message_id="m",
        timestamp=1_700_000_000, type="t", user_id="guest", app_id="a", cluster_id="k",
    )
    for body in [b"", b"x", bytes(range(256)) * 4096 + b"tail"]:
        channel.basic_publish("", queue, body, sent)
        ((_, received, found),) = collect(channel, queue, 1)
        assert found == body, f"a body of {len(body)} bytes came back with {len(found)}"
        expect(received, sent)


def errors(connection):
    name = unique("errors")
    expect_closed(404, lambda: connection.channel().queue_declare(name, passive=True))
    expect_closed(404, lambda: connection.channel().exchange_declare(name, passive=True))
    expect_closed(404, lambda: connection.channel().basic_consume(name, lambda *_: None))
    keeper = connection.channel()
    keeper.queue_declare(name, exclusive=True)
    expect_closed(406, lambda: connection.channel().queue_declare(name, exclusive=True, arguments={"x-max-length": 1}))
    expect_closed(406, lambda: connection.channel().exchange_declare("amq.direct", "fanout", durable=True))
    expect_closed(403, lambda: connection.channel().queue_declare("amq.mine"))
    expect_closed(403, lambda: connection.channel().exchange_declare("amq.mine"))

    def unknown_tag():
        channel = connection.channel()
        channel.basic_ack(99)
        channel.queue_declare(name, passive=True)

    expect_closed(406, unknown_tag)
    keeper.queue_declare(name, passive=True)
    assert connection.is_open


def transactions(connection):
    channel = connection.channel()
    queue = channel.queue_declare("", exclusive=True).method.queue
    channel.tx_select()
    channel.basic_publish("", queue, b"undone")
    channel.tx_rollback()
    channel.basic_publish("", queue, b"done")
    expect(channel.basic_get(queue)[0], None)
    channel.tx_commit()
    method, _, body = channel.basic_get(queue)
    expect(body, b"done")
    channel.basic_ack(method.delivery_tag)
    channel.tx_rollback()
    channel.basic_ack(method.delivery_tag)
    channel.tx_commit()
    expect(channel.basic_get(queue)[0], None)


def length_limits(connection):
    channel = connection.channel()
    oldest_goes = channel.queue_declare("", exclusive=True, arguments={"x-max-length": 2}).method.queue
    for number in range(4):
        channel.basic_publish("", oldest_goes, b"%d" % number)
    expect(bodies(collect(channel, oldest_goes, 2)), [b"2", b"3"])

    refusing = channel.queue_declare(
        "", exclusive=True, arguments={"x-max-length": 1, "x-overflow": "reject-publish"}
    ).method.queue
    publisher = connection.channel()
    publisher.confirm_delivery()
    publisher.basic_publish("", refusing, b"in")
    try:
        publisher.basic_publish("", refusing, b"over")
    except NackError:
        pass
    else:
        raise AssertionError("a full queue did not refuse")


def bound_exchanges(connection):
    channel = connection.channel()
    front, back, rest = unique("front"), unique("back"), unique("rest")
    channel.exchange_declare(rest, "fanout")
    channel.exchange_declare(back, "topic")
    channel.exchange_declare(front, "direct", arguments={"alternate-exchange": rest})
    channel.exchange_bind(back, front, "a.b")
    queue, others = (channel.queue_declare("", exclusive=True).method.queue for _ in range(2))
    channel.queue_bind(queue, back, "a.*")
    channel.queue_bind(others, rest)
    channel.basic_publish(front, "a.b", b"matched")
    channel.basic_publish(front, "x", b"unmatched")
    expect(bodies(collect(channel, queue, 1)), [b"matched"])
    expect(bodies(collect(channel, others, 1)), [b"unmatched"])
    for exchange in [front, back, rest]:
        channel.exchange_delete(exchange)


def cancelled_by_broker(connection):
    queue = unique("gone")
    channel = connection.channel()
    channel.queue_declare(queue)
    cancelled = []
    channel.add_on_cancel_callback(lambda frame: cancelled.append(frame.method.consumer_tag))
    tag = channel.basic_consume(queue, lambda *_: None)
    connection.channel().queue_delete(queue)
    connection.process_data_events(1)
    expect(cancelled, [tag])


def stream(connection):
    """A stream keeps what was read, and is read from any offset."""
    channel = connection.channel()
    channel.confirm_delivery()
    queue = unique("stream")
    channel.queue_declare(queue, durable=True, arguments={"x-queue-type": "stream"})
    for number in range(10):
        channel.basic_publish("", queue, b"%d" % number)
    for start, first in [("first", 0), (7, 7), ("first", 0)]:
        reader = connection.channel()
        reader.basic_qos(prefetch_count=3)
        found = []
        for method, properties, body in reader.consume(queue, arguments={"x-stream-offset": start}, inactivity_timeout=10):
            assert method, f"after {found} nothing comes"
            reader.basic_ack(method.delivery_tag)
            found.append((properties.headers["x-stream-offset"], body))
            if len(found) == 10 - first:
                break
        expect(found, [(number, b"%d" % number) for number in range(first, 10)])
        reader.close()
    channel.queue_delete(queue)


def quorum_queue(connection):
    queue = unique("quorum")
    channel = connection.channel()
    channel.confirm_delivery()
    channel.queue_declare(queue, durable=True, arguments={"x-queue-type": "quorum", "x-delivery-limit": 2})
    channel.basic_publish("", queue, b"poison", PERSISTENT)
    counts = []
    for _ in range(3):
        method, properties, _ = channel.basic_get(queue)
        counts.append((properties.headers or {}).get("x-delivery-count", 0))
        channel.basic_nack(method.delivery_tag, requeue=True)
    expect(counts, [0, 1, 2])
    time.sleep(0.2)
    expect(channel.basic_get(queue)[0], None)
    channel.queue_delete(queue)


def restart(_):
    """Durable things and persistent messages outlive the broker, killed or stopped; transient ones do not."""
    with own_broker() as broker:
        expected = []
        for end in [broker.kill, broker.stop]:
            connection = connect(broker.url)
            channel = connection.channel()
            channel.exchange_declare("lasting", "direct", durable=True)
            channel.queue_declare("lasting", durable=True)
            channel.queue_bind("lasting", "lasting", "key")
            channel.confirm_delivery()
            expected.append(b"%d" % len(expected))
            channel.basic_publish("lasting", "key", expected[-1], PERSISTENT, mandatory=True)
            channel.basic_publish("lasting", "key", b"transient")
            end()
            broker.start()
        channel = connect(broker.url).channel()
        channel.exchange_declare("lasting", passive=True)
        expect(bodies(collect(channel, "lasting", 3, seconds_max=1)), expected)


def recovery(_):
    """pika has none of its own. Its users connect again when the connection is lost, and declare everything anew."""
    received, done = Queue(), threading.Event()

    def on_message(channel, method, _, body):
        received.put(body)
        channel.basic_ack(method.delivery_tag)

    def serve(url):
        while not done.is_set():
            try:
                connection = connect(url)
                channel = connection.channel()
                channel.exchange_declare("topology", "direct", durable=True)
                channel.queue_declare("lasting", durable=True)
                channel.queue_declare("passing", exclusive=True)
                for name in ["lasting", "passing"]:
                    channel.queue_bind(name, "topology", name)
                    channel.basic_consume(name, on_message)
                received.put("connected")
                while not done.is_set():
                    connection.process_data_events(time_limit=0.1)
                connection.close()
            except AMQPError:
                time.sleep(0.05)

    def await_(expected):
        # What comes a second time, as its acknowledgement was lost with the broker, is skipped.
        while received.get(timeout=10) != expected:
            pass

    with own_broker() as broker:
        client = threading.Thread(target=serve, args=(broker.url,), daemon=True)
        client.start()
        for end in [None, broker.kill, broker.stop]:
            if end:
                end()
                broker.start()
            await_("connected")
            channel = connect(broker.url).channel()
            channel.confirm_delivery()
            for key in ["lasting", "passing"]:
                text = f"{key} {end and end.__name__}".encode()
                channel.basic_publish("topology", key, text, PERSISTENT, mandatory=True)
                await_(text)
        done.set()
        client.join(10)


SCENARIOS = {
    "work queue": work_queue,
    "publish/subscribe": publish_subscribe,
    "routing": routing,
    "topics": topics,
    "RPC": rpc,
    "publisher confirms": publisher_confirms,
    "mandatory return": mandatory_return,
    "dead letters and TTL": dead_letters,
    "priority": priority,
    "headers exchange": headers_exchange,
    "get": get,
    "nack and requeue": nack_requeue,
    "unsettled messages return": unsettled_return,
    "exclusive and auto-delete": exclusive_and_auto_delete,
    "properties and bodies": properties_survive,
    "errors": errors,
    "transactions": transactions,
    "length limits": length_limits,
    "bound and alternate exchanges": bound_exchanges,
    "consumer cancelled by broker": cancelled_by_broker,
    "quorum queue": quorum_queue,
    "stream": stream,
}


def main():
    report = Report()
    for name, scenario in SCENARIOS.items():
        connection = connect()
        report.run(name, scenario, connection)
        if connection.is_open:
            connection.close()
    if "PILLARBOX_BIN" in os.environ:
        report.run("restart", restart, None)
        report.run("recovery", recovery, None)
    else:
        for name in ["restart", "recovery"]:
            report.skip(name, "the broker was started by somebody else")
    report.finish()


if __name__ == "__main__":
    main()
