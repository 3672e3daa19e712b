"""STOMP 1.1 and 1.2 over TCP, and 1.2 over a websocket, through stomp.py."""

import contextlib
import os
import queue
import threading
import time
import uuid
from urllib.parse import urlsplit

import stomp

from broker import own_broker
from report import Report

HOST = os.environ["AMQP_HOST"]
STOMP_PORT = int(os.environ["STOMP_PORT"])
WS_URL = os.environ.get("WS_URL")
WAIT = 10


class Inbox(stomp.ConnectionListener):
    """Every frame from the broker, by its kind."""

    def __init__(self):
        self.messages = queue.Queue()
        self.receipts = queue.Queue()
        self.errors = queue.Queue()
        self.connected_headers = None
        self.heartbeats = 0

    def on_connected(self, frame):
        self.connected_headers = frame.headers

    def on_message(self, frame):
        self.messages.put(frame)

    def on_receipt(self, frame):
        self.receipts.put(frame.headers["receipt-id"])

    def on_error(self, frame):
        self.errors.put(frame)

    def on_heartbeat(self):
        self.heartbeats += 1


def open_11(**options):
    return stomp.Connection11([(HOST, STOMP_PORT)], vhost="/", **options)


def open_12(**options):
    return stomp.Connection12([(HOST, STOMP_PORT)], vhost="/", **options)


def open_websocket(**options):
    address = urlsplit(WS_URL)
    return stomp.WSStompConnection([(address.hostname, address.port)], ws_path=address.path, vhost="/", **options)


class Client:
    def __init__(self, opener, user="guest", password="guest", **options):
        self.inbox = Inbox()
        self.connection = opener(**options)
        self.connection.set_listener("inbox", self.inbox)
        self.connection.connect(user, password, wait=True)

    def __enter__(self):
        return self.connection, self.inbox

    def __exit__(self, *_):
        # The broker may close it between the question and the answer, and the client's own reader the socket.
        with contextlib.suppress(stomp.exception.NotConnectedException, OSError):
            self.connection.disconnect()


def unique(name):
    return f"{name}-{uuid.uuid4().hex[:12]}"


def expect(found, expected):
    assert found == expected, f"found {found!r}, expected {expected!r}"


def bodies(inbox, count):
    return [inbox.messages.get(timeout=WAIT).body for _ in range(count)]


def expect_nothing(inbox):
    time.sleep(0.3)
    assert inbox.messages.empty(), inbox.messages.get().body


def work_queue(opener):
    destination = f"/queue/{unique('work')}"
    with Client(opener) as (connection, inbox):
        for number in range(5):
            connection.send(destination, f"task {number}", persistent="true")
        connection.subscribe(destination, id="1", ack="auto")
        expect(bodies(inbox, 5), [f"task {number}" for number in range(5)])


def topics(opener):
    name = unique("topic")
    with Client(opener) as (connection, inbox):
        connection.subscribe(f"/topic/{name}.*.error", id="1", headers={"receipt": "ready"})
        expect(inbox.receipts.get(timeout=WAIT), "ready")
        for key in ["app.error", "app.info", "db.error"]:
            connection.send(f"/topic/{name}.{key}", key)
        expect(bodies(inbox, 2), ["app.error", "db.error"])


def publish_subscribe(opener):
    """A topic by its STOMP name, and the exchange behind a tutorial's fanout: each subscriber has its own copy."""
    for destination in [f"/topic/{unique('news')}", "/exchange/amq.fanout"]:
        with Client(opener) as (one, first), Client(opener) as (two, second):
            for connection, inbox in [(one, first), (two, second)]:
                connection.subscribe(destination, id="1", headers={"receipt": "ready"})
                expect(inbox.receipts.get(timeout=WAIT), "ready")
            text = unique("to all")
            one.send(destination, text)
            for inbox in [first, second]:
                expect(bodies(inbox, 1), [text])
                expect_nothing(inbox)


def exchanges(opener):
    name = unique("key")
    with Client(opener) as (connection, inbox):
        connection.subscribe(f"/exchange/amq.direct/{name}", id="1", headers={"receipt": "ready"})
        expect(inbox.receipts.get(timeout=WAIT), "ready")
        connection.send(f"/exchange/amq.direct/{name}", "direct")
        expect(bodies(inbox, 1), ["direct"])


def rpc(opener):
    destination = f"/queue/{unique('requests')}"
    with Client(opener) as (server, requests), Client(opener) as (client, replies):
        server.subscribe(destination, id="1")
        client.send(destination, "ping", headers={"reply-to": "/temp-queue/answers", "correlation-id": "7"})
        request = requests.messages.get(timeout=WAIT)
        server.send(request.headers["reply-to"], "pong", headers={"correlation-id": request.headers["correlation-id"]})
        reply = replies.messages.get(timeout=WAIT)
        expect((reply.body, reply.headers["correlation-id"]), ("pong", "7"))
        expect(reply.headers["subscription"], "/temp-queue/answers")


def receipts(opener):
    destination = f"/queue/{unique('receipts')}"
    with Client(opener) as (connection, inbox):
        for number in range(20):
            connection.send(destination, "x", receipt=f"send-{number}", persistent="true")
        expect({inbox.receipts.get(timeout=WAIT) for _ in range(20)}, {f"send-{number}" for number in range(20)})
        connection.subscribe(destination, id="1")
        expect(bodies(inbox, 20), ["x"] * 20)


def acknowledge(connection, frame, nack=False):
    """1.2 names the delivery by its ack header, 1.1 by message and subscription."""
    action = connection.nack if nack else connection.ack
    if connection.version == "1.2":
        action(frame.headers["ack"])
    else:
        action(frame.headers["message-id"], frame.headers["subscription"])


def unsettled_return(opener):
    destination = f"/queue/{unique('held')}"
    with Client(opener) as (connection, inbox):
        for number in range(3):
            connection.send(destination, str(number))
        connection.subscribe(destination, id="1", ack="client-individual")
        frames = [inbox.messages.get(timeout=WAIT) for _ in range(3)]
        acknowledge(connection, frames[1])
    with Client(opener) as (connection, inbox):
        connection.subscribe(destination, id="1", ack="auto")
        frames = [inbox.messages.get(timeout=WAIT) for _ in range(2)]
        expect([(frame.body, frame.headers.get("redelivered")) for frame in frames], [("0", "true"), ("2", "true")])
        expect_nothing(inbox)


def nack(opener):
    destination = f"/queue/{unique('nack')}"
    with Client(opener) as (connection, inbox):
        connection.send(destination, "again")
        connection.subscribe(destination, id="1", ack="client")
        acknowledge(connection, inbox.messages.get(timeout=WAIT), nack=True)
        frame = inbox.messages.get(timeout=WAIT)
        expect((frame.body, frame.headers.get("redelivered")), ("again", "true"))
        acknowledge(connection, frame)


def prefetch(opener):
    destination = f"/queue/{unique('prefetch')}"
    with Client(opener) as (connection, inbox):
        for number in range(3):
            connection.send(destination, str(number))
        connection.subscribe(destination, id="1", ack="client", headers={"prefetch-count": "1"})
        for number in range(3):
            frame = inbox.messages.get(timeout=WAIT)
            expect(frame.body, str(number))
            expect_nothing(inbox)
            acknowledge(connection, frame)


def transactions(opener):
    destination = f"/queue/{unique('tx')}"
    with Client(opener) as (connection, inbox):
        connection.subscribe(destination, id="1")
        connection.begin("t1")
        connection.send(destination, "undone", transaction="t1")
        connection.abort("t1")
        connection.begin("t2")
        connection.send(destination, "done", transaction="t2")
        expect_nothing(inbox)
        connection.commit("t2")
        expect(bodies(inbox, 1), ["done"])
        expect_nothing(inbox)


def headers_and_bodies(opener):
    destination = f"/queue/{unique('headers')}"
    with Client(opener) as (connection, inbox):
        headers = {"plain": "value", "escaped": "a:b\\c\nd", "häuser": "überall"}
        connection.send(destination, "häuser\n\ttext", content_type="text/plain", headers=headers)
        connection.subscribe(destination, id="1")
        frame = inbox.messages.get(timeout=WAIT)
        expect(frame.body, "häuser\n\ttext")
        expect({name: frame.headers.get(name) for name in headers}, headers)
        expect(frame.headers["content-type"], "text/plain")
        large = "pillarbox" * 30_000
        connection.send(destination, large)
        expect(bodies(inbox, 1), [large])


def unsubscribe(opener):
    destination = f"/queue/{unique('unsubscribe')}"
    with Client(opener) as (connection, inbox):
        connection.subscribe(destination, id="1")
        connection.send(destination, "first")
        expect(bodies(inbox, 1), ["first"])
        connection.unsubscribe("1", headers={"receipt": "gone"})
        expect(inbox.receipts.get(timeout=WAIT), "gone")
        connection.send(destination, "second")
        expect_nothing(inbox)


def heartbeats(opener):
    with Client(opener, heartbeats=(1000, 1000)) as (connection, inbox):
        expect(inbox.connected_headers["heart-beat"], "1000,1000")
        time.sleep(4)
        assert connection.is_connected()
        assert inbox.heartbeats >= 2, inbox.heartbeats


def errors(opener):
    with Client(opener) as (connection, inbox):
        connection.send("/nowhere/at/all", "x")
        expect(inbox.errors.get(timeout=WAIT).headers["message"], "Unknown destination")
    try:
        Client(opener, password="wrong")
    except stomp.exception.ConnectFailedException:
        return
    raise AssertionError("a wrong password was let in")


def missing_queue(opener):
    """The broker says so and closes. Over a websocket RabbitMQ only closes."""
    with Client(opener) as (connection, inbox):
        connection.subscribe(f"/amq/queue/{unique('missing')}", id="1")
        expect(inbox.errors.get(timeout=WAIT).headers["message"], "not_found")


def recovery():
    """A client that connects again when it hears of its loss, as stomp.py's users write it; what was sent is there again."""

    class Again(Inbox):
        def __init__(self, connection):
            super().__init__()
            self.connection = connection

        def on_disconnected(self):
            threading.Thread(target=self.begin, daemon=True).start()

        def begin(self):
            for _ in range(300):
                try:
                    self.connection.connect("guest", "guest", wait=True)
                    self.connection.subscribe("/queue/lasting", id="q", ack="client-individual")
                    headers = {"durable": "true", "receipt": "t"}
                    self.connection.subscribe("/topic/lasting", id="t", ack="client-individual", headers=headers)
                    self.receipts.get(timeout=WAIT)
                    return
                except (stomp.exception.StompException, OSError, queue.Empty):
                    time.sleep(0.1)

        def on_message(self, frame):
            self.connection.ack(frame.headers["ack"])
            super().on_message(frame)

    def send(broker, destination, body):
        publisher = lambda: stomp.Connection12([(HOST, broker.ports["stomp"])], vhost="/")
        with Client(publisher) as (connection, inbox):
            connection.send(destination, body, persistent="true", headers={"receipt": body})
            expect(inbox.receipts.get(timeout=WAIT), body)

    with own_broker() as broker:
        own = stomp.Connection12([(HOST, broker.ports["stomp"])], vhost="/", reconnect_attempts_max=1)
        inbox = Again(own)
        own.set_listener("again", inbox)
        inbox.begin()
        send(broker, "/queue/lasting", "before")
        expect(bodies(inbox, 1), ["before"])
        for end in [broker.kill, broker.stop]:
            end()
            broker.start()
            # Before or after it is back: the queues are there.
            for destination in ["/queue/lasting", "/topic/lasting"]:
                send(broker, destination, f"{end.__name__} {destination}")
            missing = {f"{end.__name__} /queue/lasting", f"{end.__name__} /topic/lasting"}
            # An acknowledgement may be lost with the broker; then its message comes again.
            while missing:
                missing -= set(bodies(inbox, 1))
        own.remove_listener("again")
        own.disconnect()


SCENARIOS = {
    "work queue": work_queue,
    "publish/subscribe": publish_subscribe,
    "topics": topics,
    "routing": exchanges,
    "RPC": rpc,
    "publisher confirms": receipts,
    "unsettled messages return": unsettled_return,
    "nack and requeue": nack,
    "prefetch": prefetch,
    "transactions": transactions,
    "properties and bodies": headers_and_bodies,
    "unsubscribe": unsubscribe,
    "heartbeats": heartbeats,
    "errors": errors,
}


def main():
    report = Report()
    openers = {"1.1": open_11, "1.2": open_12}
    if WS_URL:
        openers["websocket"] = open_websocket
    for version, opener in openers.items():
        for name, scenario in SCENARIOS.items():
            report.run(f"{name} ({version})", scenario, opener)
        if opener is not open_websocket:
            report.run(f"missing queue ({version})", missing_queue, opener)
    if "PILLARBOX_BIN" in os.environ:
        report.run("recovery", recovery)
    else:
        report.skip("recovery", "the broker was started by somebody else")
    report.finish()


if __name__ == "__main__":
    main()
