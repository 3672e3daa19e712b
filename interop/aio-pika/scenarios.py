"""The tutorials and everyday features, through aio-pika; recovery through its robust connection."""

import asyncio
import os
import uuid

import aio_pika
from aio_pika import DeliveryMode, ExchangeType, Message
from aio_pika.exceptions import (
    ChannelNotFoundEntity,
    ChannelPreconditionFailed,
    DeliveryError,
    PublishError,
    QueueEmpty,
)
from aio_pika.patterns import RPC
from aiormq.exceptions import ChannelLockedResource

from broker import own_broker
from report import Report

URL = os.environ["AMQP_URL"]
SECONDS_MAX = 60


def unique(name):
    return f"{name}-{uuid.uuid4().hex[:12]}"


def expect(found, expected):
    assert found == expected, f"found {found!r}, expected {expected!r}"


async def collect(queue, count):
    """The bodies of the next messages, settled."""
    found = []
    async with queue.iterator() as messages:
        async for message in messages:
            async with message.process():
                found.append(message.body)
            if len(found) == count:
                return found


async def own_queue(channel, **arguments):
    return await channel.declare_queue(exclusive=True, arguments={k.replace("_", "-"): v for k, v in arguments.items()})


async def send(channel, queue, *bodies):
    for body in bodies:
        await channel.default_exchange.publish(Message(body), queue.name)


async def work_queue(connection):
    channel = await connection.channel()
    queue = await channel.declare_queue(unique("work"), durable=True)
    for number in range(10):
        task = Message(b"%d" % number, delivery_mode=DeliveryMode.PERSISTENT)
        await channel.default_exchange.publish(task, queue.name)

    async def worker(on_task):
        own = await connection.channel()
        await own.set_qos(prefetch_count=1)
        await (await own.get_queue(queue.name)).consume(on_task)

    held, done, end = [], [], asyncio.Event()

    async def hold(message):
        held.append(message.body)

    async def work(message):
        done.append(message.body)
        await message.ack()
        if len(done) == 9:
            end.set()

    await worker(hold)
    while not held:
        await asyncio.sleep(0.02)
    await worker(work)
    await end.wait()
    expect((held, done), ([b"0"], [b"%d" % number for number in range(1, 10)]))
    await queue.delete(if_unused=False, if_empty=False)


async def publish_subscribe(connection):
    channel = await connection.channel()
    exchange = await channel.declare_exchange(unique("logs"), ExchangeType.FANOUT, auto_delete=True)
    queues = [await own_queue(channel) for _ in range(2)]
    for queue in queues:
        await queue.bind(exchange)
    await exchange.publish(Message(b"to all"), "ignored")
    for queue in queues:
        expect(await collect(queue, 1), [b"to all"])


async def routing(connection):
    channel = await connection.channel()
    exchange = await channel.declare_exchange(unique("direct_logs"), ExchangeType.DIRECT, auto_delete=True)
    queue = await own_queue(channel)
    for severity in ["warning", "error"]:
        await queue.bind(exchange, severity)
    for severity in ["info", "warning", "error"]:
        await exchange.publish(Message(severity.encode()), severity, mandatory=False)
    expect(await collect(queue, 2), [b"warning", b"error"])
    await queue.unbind(exchange, "warning")
    for severity in ["warning", "error"]:
        await exchange.publish(Message(severity.encode()), severity, mandatory=False)
    expect(await collect(queue, 1), [b"error"])


async def topics(connection):
    channel = await connection.channel()
    exchange = await channel.declare_exchange(unique("topic_logs"), ExchangeType.TOPIC, auto_delete=True)
    keys = ["kern.critical", "kern.info", "cron.critical", "kern", "kern.disk.critical"]
    matching = {
        "#": keys,
        "kern.*": ["kern.critical", "kern.info"],
        "*.critical": ["kern.critical", "cron.critical"],
        "kern.#": ["kern.critical", "kern.info", "kern", "kern.disk.critical"],
    }
    queues = {pattern: await own_queue(channel) for pattern in matching}
    for pattern, queue in queues.items():
        await queue.bind(exchange, pattern)
    for key in keys:
        await exchange.publish(Message(key.encode()), key)
    for pattern, expected in matching.items():
        expect(await collect(queues[pattern], len(expected)), [key.encode() for key in expected])


async def rpc(connection):
    channel = await connection.channel()
    caller = await RPC.create(channel)
    method = unique("square")

    async def square(*, x):
        return x * x

    async def refuse():
        raise ValueError("on purpose")

    await caller.register(method, square, auto_delete=True)
    await caller.register(method + "-refuse", refuse, auto_delete=True)
    expect(await asyncio.gather(*(caller.call(method, {"x": x}) for x in range(20))), [x * x for x in range(20)])
    try:
        await caller.call(method + "-refuse")
    except ValueError:
        pass
    else:
        raise AssertionError("no error")
    await caller.close()


async def publisher_confirms(connection):
    channel = await connection.channel(publisher_confirms=True)
    queue = await own_queue(channel)
    await asyncio.gather(*(send(channel, queue, b"%d" % number) for number in range(500)))
    expect((await channel.declare_queue(queue.name, passive=True)).declaration_result.message_count, 500)


async def mandatory_return(connection):
    channel = await connection.channel(on_return_raises=True)
    try:
        await channel.default_exchange.publish(Message(b"lost"), unique("nowhere"), mandatory=True)
    except PublishError as error:
        expect(error.frame.reply_code, 312)
    else:
        raise AssertionError("an unroutable message was not returned")


async def dead_letters(connection):
    channel = await connection.channel()
    exchange = await channel.declare_exchange(unique("dlx"), ExchangeType.FANOUT, auto_delete=True)
    dead = await own_queue(channel)
    await dead.bind(exchange)
    source = await own_queue(channel, x_dead_letter_exchange=exchange.name, x_message_ttl=100)
    await send(channel, source, b"late")
    while not (late := await dead.get(no_ack=True, fail=False)):
        await asyncio.sleep(0.05)
    (death,) = late.headers["x-death"]
    expect((death["queue"], death["reason"], death["count"]), (source.name, "expired", 1))
    await send(channel, source, b"bad")
    await (await source.get()).reject(requeue=False)
    while not (bad := await dead.get(no_ack=True, fail=False)):
        await asyncio.sleep(0.05)
    expect(bad.headers["x-first-death-reason"], "rejected")


async def priority(connection):
    channel = await connection.channel()
    queue = await own_queue(channel, x_max_priority=5)
    for level in [0, 5, 3, 9]:
        await channel.default_exchange.publish(Message(b"%d" % level, priority=level), queue.name)
    expect(await collect(queue, 4), [b"5", b"9", b"3", b"0"])


async def headers_exchange(connection):
    channel = await connection.channel()
    exchange = await channel.declare_exchange(unique("headers"), ExchangeType.HEADERS, auto_delete=True)
    queues = {match: await own_queue(channel) for match in ["all", "any"]}
    for match, queue in queues.items():
        await queue.bind(exchange, "", arguments={"x-match": match, "format": "pdf", "pages": 2})
    for body, headers in {
        b"both": {"format": "pdf", "pages": 2, "other": True},
        b"one": {"format": "pdf", "pages": 3},
        b"none": {"format": "zip"},
    }.items():
        await exchange.publish(Message(body, headers=headers), "", mandatory=False)
    expect(await collect(queues["any"], 2), [b"both", b"one"])
    expect(await collect(queues["all"], 1), [b"both"])


async def get(connection):
    channel = await connection.channel()
    queue = await own_queue(channel)
    try:
        await queue.get()
    except QueueEmpty:
        pass
    else:
        raise AssertionError("not empty")
    await send(channel, queue, b"0", b"1", b"2")
    message = await queue.get(no_ack=True)
    expect((message.body, message.message_count, message.redelivered), (b"0", 2, False))
    expect((await queue.purge()).message_count, 2)


async def nack_requeue(connection):
    channel = await connection.channel()
    queue = await own_queue(channel)
    await send(channel, queue, b"0", b"1", b"2")
    first = [await queue.get() for _ in range(3)]
    await first[-1].nack(multiple=True, requeue=True)
    again = [await queue.get() for _ in range(3)]
    expect([(m.body, m.redelivered) for m in again], [(b"0", True), (b"1", True), (b"2", True)])
    await again[0].nack(requeue=False)
    await again[1].ack()
    await again[2].reject(requeue=True)
    expect(await collect(queue, 1), [b"2"])


async def exclusive_and_auto_delete(connection):
    channel = await connection.channel()
    queue = await own_queue(channel)
    async with await aio_pika.connect(URL) as stranger:
        try:
            await (await stranger.channel()).declare_queue(queue.name, passive=True)
        except ChannelLockedResource:
            pass
        else:
            raise AssertionError("not exclusive")
    shared = await channel.declare_queue(unique("auto"), auto_delete=True)
    await shared.cancel(await shared.consume(lambda _: None))
    try:
        await (await connection.channel()).declare_queue(shared.name, passive=True)
    except ChannelNotFoundEntity:
        return
    raise AssertionError("still there")


async def properties_and_bodies(connection):
    channel = await connection.channel()
    queue = await own_queue(channel)
    headers = {"text": "häuser", "int": 7, "big": 2**40, "float": 1.5, "yes": True, "none": None,
               "list": [1, "two", {"three": 3}], "table": {"inner": {"deep": "x"}}}
    for body in [b"", b"x", bytes(range(256)) * 4096 + b"tail"]:
        sent = Message(
            body, headers=headers, content_type="text/plain", content_encoding="utf-8", priority=3, correlation_id="c",
            delivery_mode=DeliveryMode.NOT_PERSISTENT, reply_to="r", expiration=60, message_id="m",
            timestamp=1_700_000_000, type="t", user_id="guest", app_id="a",
        )
        await channel.default_exchange.publish(sent, queue.name)
        found = await queue.get(no_ack=True)
        expect(found.body, body)
        expect(found.info()["headers"], headers)
        for name in ["content_type", "content_encoding", "priority", "correlation_id", "delivery_mode", "reply_to",
                     "expiration", "message_id", "timestamp", "type", "user_id", "app_id"]:
            expect(getattr(found, name), getattr(sent, name))


async def errors(connection):
    name = unique("errors")
    try:
        await (await connection.channel()).declare_queue(name, passive=True)
    except ChannelNotFoundEntity:
        pass
    else:
        raise AssertionError("no 404")
    keeper = await connection.channel()
    await keeper.declare_queue(name, exclusive=True)
    try:
        await (await connection.channel()).declare_queue(name, exclusive=True, arguments={"x-max-length": 1})
    except ChannelPreconditionFailed:
        pass
    else:
        raise AssertionError("no 406")
    await keeper.declare_queue(name, passive=True)


async def transactions(connection):
    channel = await connection.channel(publisher_confirms=False)
    queue = await own_queue(channel)
    async with channel.transaction():
        await send(channel, queue, b"done")
    try:
        async with channel.transaction():
            await send(channel, queue, b"undone")
            raise KeyError
    except KeyError:
        pass
    expect((await queue.get(no_ack=True)).body, b"done")
    expect(await queue.get(fail=False), None)


async def length_limits(connection):
    channel = await connection.channel()
    refusing = await own_queue(channel, x_max_length=1, x_overflow="reject-publish")
    await send(channel, refusing, b"in")
    try:
        await send(channel, refusing, b"over")
    except DeliveryError:
        return
    raise AssertionError("a full queue did not refuse")


async def recovery(_):
    """The robust connection declares, binds and consumes again by itself after each restart."""
    with own_broker() as broker:
        connection = await aio_pika.connect_robust(broker.url, reconnect_interval=0.3)
        async with connection:
            channel = await connection.channel()
            exchange = await channel.declare_exchange("transient", ExchangeType.TOPIC)
            queue = await channel.declare_queue(unique("transient"), auto_delete=True)
            await queue.bind(exchange, "a.#")
            lasting = await channel.declare_queue("lasting", durable=True)
            received = asyncio.Queue()
            await queue.consume(received.put, no_ack=True)
            for end in [broker.kill, broker.stop]:
                message = Message(end.__name__.encode(), delivery_mode=DeliveryMode.PERSISTENT)
                await channel.default_exchange.publish(message, "lasting")
                connection.connected.clear()
                await asyncio.to_thread(end)
                await asyncio.to_thread(broker.start)
                await connection.connected.wait()
                body = b"after " + end.__name__.encode()
                while True:
                    try:
                        await exchange.publish(Message(body), "a.b")
                        break
                    except (ConnectionError, aio_pika.exceptions.AMQPError, RuntimeError):
                        # The channel is still being set up again.
                        await asyncio.sleep(0.2)
                expect((await received.get()).body, body)
            expect(await collect(lasting, 2), [b"kill", b"stop"])


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
    "exclusive and auto-delete": exclusive_and_auto_delete,
    "properties and bodies": properties_and_bodies,
    "errors": errors,
    "transactions": transactions,
    "length limits": length_limits,
}


async def attempt(scenario, connect):
    async with await connect(URL) as connection:
        await asyncio.wait_for(scenario(connection), SECONDS_MAX)


def main():
    report = Report()
    for name, scenario in SCENARIOS.items():
        report.run(name, lambda: asyncio.run(attempt(scenario, aio_pika.connect)))
    if "PILLARBOX_BIN" in os.environ:
        report.run("recovery", lambda: asyncio.run(attempt(recovery, aio_pika.connect)))
    else:
        report.skip("recovery", "the broker was started by somebody else")
    report.finish()


if __name__ == "__main__":
    main()
