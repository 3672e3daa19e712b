"""Everyday features through kombu, and through py-amqp beneath it."""

import os
import socket
import threading
import time
import uuid

import amqp
from kombu import Connection, Consumer, Exchange, Producer, Queue, binding
from kombu.common import Broadcast
from kombu.mixins import ConsumerMixin
from kombu.pools import producers

from broker import own_broker
from report import Report

URL = os.environ["AMQP_URL"]


def unique(name):
    return f"{name}-{uuid.uuid4().hex[:12]}"


def expect(found, expected):
    assert found == expected, f"found {found!r}, expected {expected!r}"


def collect(connection, queue, count, **options):
    """The bodies of the next messages, settled."""
    found = []

    def on_message(body, message):
        found.append(body)
        message.ack()

    with Consumer(connection.default_channel, [queue], callbacks=[on_message], **options):
        while len(found) < count:
            connection.drain_events(timeout=10)
    return found


def work_queue(connection):
    name = unique("work")
    producer = Producer(connection)
    queue = Queue(name, durable=True)
    for number in range(10):
        producer.publish({"task": number}, routing_key=name, declare=[queue], serializer="json")
    expect(collect(connection, queue, 10, prefetch_count=1, accept=["json"]), [{"task": n} for n in range(10)])
    queue(connection.default_channel).delete()


def simple_queue(connection):
    name = unique("simple")
    with connection.SimpleQueue(name) as queue:
        queue.put({"hello": "world"}, serializer="json", compression="zlib")
        message = queue.get(timeout=10)
        expect(message.payload, {"hello": "world"})
        message.requeue()
        message = queue.get(timeout=10)
        expect(message.delivery_info["redelivered"], True)
        message.ack()
        expect(queue.qsize(), 0)
    connection.default_channel.queue_delete(name)


def publish_subscribe(connection):
    exchange = Exchange(unique("logs"), "fanout", durable=False, auto_delete=True)
    queues = [Queue(unique("logs"), exchange, exclusive=True)(connection.default_channel) for _ in range(2)]
    for queue in queues:
        queue.declare()
    Producer(connection, exchange).publish("to all")
    for queue in queues:
        expect(collect(connection, queue, 1), ["to all"])


def routing(connection):
    exchange = Exchange(unique("direct_logs"), "direct", durable=False, auto_delete=True)
    severe = [binding(exchange, "error"), binding(exchange, "warning")]
    queue = Queue(unique("severe"), severe, exclusive=True)(connection.default_channel)
    queue.declare()
    producer = Producer(connection, exchange)
    for level in ["info", "error", "debug", "warning"]:
        producer.publish(level, routing_key=level)
    expect(collect(connection, queue, 2), ["error", "warning"])


def rpc(connection):
    """A client asks and a server on another connection answers, paired by correlation id."""
    requests = Queue(unique("rpc"), exclusive=False, auto_delete=True)

    def on_request(body, message):
        answer = Producer(message.channel)
        answer.publish(body * body, routing_key=message.properties["reply_to"],
                       correlation_id=message.properties["correlation_id"])
        message.ack()

    with Connection(URL) as server, Consumer(server.default_channel, [requests], callbacks=[on_request]):
        answers = Queue("", exclusive=True)(connection.default_channel)
        answers.declare()
        found = []
        with Consumer(connection.default_channel, [answers], on_message=found.append, no_ack=True):
            for number in [3, 4]:
                identity = str(uuid.uuid4())
                Producer(connection).publish(number, routing_key=requests.name, reply_to=answers.name,
                                             correlation_id=identity)
                server.drain_events(timeout=10)
                connection.drain_events(timeout=10)
                answer = found.pop()
                expect((answer.payload, answer.properties["correlation_id"]), (number * number, identity))


def topics(connection):
    exchange = Exchange(unique("topic_logs"), "topic", durable=False, auto_delete=True)
    queue = Queue(unique("kern"), [binding(exchange, "kern.*"), binding(exchange, "*.critical")], exclusive=True)
    queue = queue(connection.default_channel)
    queue.declare()
    producer = Producer(connection, exchange)
    for key in ["kern.critical", "kern.info", "cron.critical", "cron.info"]:
        producer.publish(key, routing_key=key)
    expect(collect(connection, queue, 3), ["kern.critical", "kern.info", "cron.critical"])


def broadcast(connection):
    name = unique("broadcast")
    queues = [Broadcast(name)(connection.default_channel) for _ in range(2)]
    for queue in queues:
        queue.declare()
    Producer(connection, queues[0].exchange).publish("to all")
    for queue in queues:
        expect(collect(connection, queue, 1), ["to all"])
        queue.delete()


def publisher_confirms(_):
    with Connection(URL, transport_options={"confirm_publish": True}) as connection:
        with producers[connection].acquire(block=True) as producer:
            queue = Queue(unique("confirms"), exclusive=True)
            for number in range(50):
                producer.publish(number, routing_key=queue.name, declare=[queue])
            declared = queue(producer.channel).queue_declare(passive=True)
            expect(declared.message_count, 50)


def dead_letters(connection):
    channel = connection.default_channel
    exchange = Exchange(unique("dlx"), "fanout", durable=False)
    dead = Queue(unique("dead"), exchange, exclusive=True)(channel)
    dead.declare()
    source = Queue(
        unique("source"), exclusive=True, message_ttl=0.1, queue_arguments={"x-dead-letter-exchange": exchange.name}
    )(channel)
    source.declare()
    Producer(channel).publish("late", routing_key=source.name)
    deaths = []
    with Consumer(channel, [dead], on_message=lambda message: deaths.extend(message.headers["x-death"]), no_ack=True):
        connection.drain_events(timeout=10)
    expect([(death["queue"], death["reason"]) for death in deaths], [(source.name, "expired")])


def priority(connection):
    queue = Queue(unique("ranks"), exclusive=True, max_priority=5)(connection.default_channel)
    queue.declare()
    producer = Producer(connection)
    for level in [0, 5, 3]:
        producer.publish(level, routing_key=queue.name, priority=level)
    expect(collect(connection, queue, 3), [5, 3, 0])


def errors(connection):
    channel = connection.channel()
    try:
        channel.queue_declare(unique("nothing"), passive=True)
    except amqp.NotFound as error:
        expect((error.reply_code, error.method_sig), (404, (50, 10)))
    else:
        raise AssertionError("no 404")
    name = unique("errors")
    connection.default_channel.queue_declare(name, durable=False, exclusive=True)
    try:
        connection.channel().queue_declare(name, exclusive=True, arguments={"x-max-length": 1})
    except amqp.PreconditionFailed:
        pass
    else:
        raise AssertionError("no 406")


def heartbeats(_):
    """A quiet connection is kept up by heartbeats from both sides."""
    with Connection(URL, heartbeat=2) as connection:
        connection.connect()
        expect(connection.get_heartbeat_interval(), 2)
        for _ in range(10):
            connection.heartbeat_check()
            try:
                connection.drain_events(timeout=0.5)
            except socket.timeout:
                pass
        assert connection.connected
        assert connection.connection.prev_recv > 0


def restart(_):
    """kombu's consumer loop finds its way back by itself; persistent messages are there again."""

    class Worker(ConsumerMixin):
        connect_max_retries = 100

        def __init__(self, connection):
            self.connection = connection
            self.received = []

        def get_consumers(self, consumer_class, channel):
            return [consumer_class([Queue("lasting")], callbacks=[self.on_task])]

        def on_task(self, body, message):
            self.received.append(body)
            message.ack()

    with own_broker() as broker, Connection(broker.url) as connection:
        worker = Worker(connection)
        loop = threading.Thread(target=worker.run, daemon=True)
        loop.start()
        for end in [broker.kill, broker.stop]:
            end()
            broker.start()
            with Connection(broker.url, transport_options={"confirm_publish": True}) as publisher:
                Producer(publisher).publish(end.__name__, routing_key="lasting", declare=[Queue("lasting")])
            deadline = time.monotonic() + 30
            while end.__name__ not in worker.received and time.monotonic() < deadline:
                time.sleep(0.1)
        expect(worker.received, ["kill", "stop"])
        worker.should_stop = True
        loop.join(10)


SCENARIOS = {
    "work queue": work_queue,
    "simple queue": simple_queue,
    "publish/subscribe": publish_subscribe,
    "routing": routing,
    "RPC": rpc,
    "topics": topics,
    "broadcast": broadcast,
    "publisher confirms": publisher_confirms,
    "dead letters and TTL": dead_letters,
    "priority": priority,
    "errors": errors,
    "heartbeats": heartbeats,
}


def main():
    report = Report()
    for name, scenario in SCENARIOS.items():
        with Connection(URL) as connection:
            report.run(name, scenario, connection)
    if "PILLARBOX_BIN" in os.environ:
        report.run("recovery", restart, None)
    else:
        report.skip("recovery", "the broker was started by somebody else")
    report.finish()


if __name__ == "__main__":
    main()
