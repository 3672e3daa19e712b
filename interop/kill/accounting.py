"""The broker is killed while a client publishes and consumes, and every message is accounted for.

For each client in turn, on a fresh data directory: its publisher gets KILL_MESSAGES persistent messages confirmed,
its consumer settles them one by one, and KILL_KILLS times in between the broker gets SIGKILL and is started again
on the same directory and port. Then the two journals are compared. An unconfirmed message may have arrived or not.
"""

import os
import random
import re
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

MESSAGES = int(os.environ.setdefault("KILL_MESSAGES", "100000"))
KILLS = int(os.environ.setdefault("KILL_KILLS", "5"))
# Unconfirmed messages a publisher may have: few enough that several windows lie between two kills.
os.environ.setdefault("KILL_WINDOW", str(max(1, min(1000, MESSAGES // (5 * (KILLS + 1))))))
os.environ.setdefault("KILL_BODY_SIZE", "256")
SEED = int(os.environ.get("KILL_SEED", random.randrange(10_000)))
SECONDS_MAX = int(os.environ.get("KILL_SECONDS_MAX", "400"))

# Broker and message read the settings above.
import pika  # noqa: E402

os.environ["KILL_QUEUE"] = "kill"
from broker import Broker, kill_group  # noqa: E402
from report import Report  # noqa: E402

CLIENTS = {"pika": ["python3", "{}.py"], "amqplib": ["node", "{}.js"]}


def main():
    report = Report()
    if "PILLARBOX_BIN" not in os.environ:
        report.skip("kill", "the broker was started by somebody else")
        return
    print(f"{MESSAGES} messages, {KILLS} kills, seed {SEED}")
    dice = random.Random(SEED)
    for client, command in CLIENTS.items():
        account_for(client, command, dice, report)
    report.finish()


def account_for(client, command, dice, report):
    work = Path(os.environ["INTEROP_WORK"]) / client
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    broker = Broker(os.environ["PILLARBOX_BIN"], work / "broker")
    broker.start()
    children = []
    try:
        with pika.BlockingConnection(pika.URLParameters(broker.url)) as connection:
            connection.channel().queue_declare(os.environ["KILL_QUEUE"], durable=True)

        deadline = time.monotonic() + SECONDS_MAX
        consumer = start(command, "consumer", work, broker, children, stdin=subprocess.PIPE)
        publisher = start(command, "publisher", work, broker, children, stdout=subprocess.PIPE)
        progress = Progress(publisher.stdout)
        restart_seconds = [
            kill_after(broker, progress, MESSAGES * number // (KILLS + 1), dice, deadline)
            for number in range(1, KILLS + 1)
        ]
        publisher.wait(deadline - time.monotonic())
        consumer.stdin.close()
        consumer.wait(deadline - time.monotonic())

        with pika.BlockingConnection(pika.URLParameters(broker.url)) as connection:
            left = connection.channel().queue_declare(os.environ["KILL_QUEUE"], passive=True).method.message_count
        check(client, work, left, restart_seconds, report)
    except (RuntimeError, TimeoutError, subprocess.TimeoutExpired, pika.exceptions.AMQPError) as failure:
        report.fail(f"{client} ran to its end", repr(failure))
    finally:
        for child in children:
            kill_group(child)
        if broker.is_running():
            broker.stop()


def start(command, role, work, broker, children, **streams):
    program = [part.format(role) for part in command]
    environment = dict(os.environ, AMQP_URL=broker.url)
    child = subprocess.Popen(
        [*program, work / f"{role}.journal"], env=environment, start_new_session=True, text=True, **streams
    )
    children.append(child)
    return child


class Progress:
    """How many messages a publisher said were confirmed."""

    def __init__(self, lines):
        self.confirmed = 0
        threading.Thread(target=self.follow, args=(lines,), daemon=True).start()

    def follow(self, lines):
        for line in lines:
            if match := re.match(r"confirmed (\d+)", line):
                self.confirmed = int(match[1])


def kill_after(broker, progress, confirmed, dice, deadline):
    """Waits for that many confirms and a moment more, kills and restarts; returns the seconds until it was ready."""
    # The publisher is back at work since the last kill.
    confirmed = max(confirmed, progress.confirmed + 1)
    while progress.confirmed < confirmed:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{progress.confirmed} messages confirmed after {SECONDS_MAX} s")
        if not broker.is_running():
            raise RuntimeError("the broker ended by itself")
        time.sleep(0.005)
    time.sleep(dice.uniform(0, 0.1))
    broker.kill()
    return broker.start()


def check(client, work, left, restart_seconds, report):
    counts, confirmed = read_publisher(work / "publisher.journal")
    deliveries = read_consumer(work / "consumer.journal")
    seen = Counter(message_id for _, message_id, _ in deliveries)
    unknown = counts["published"] - len(confirmed)
    arrived = sum(1 for message_id in seen if message_id not in confirmed)
    print(
        f"{client}: {counts['published']} published, {len(confirmed)} confirmed, {unknown} of unknown outcome "
        f"({arrived} of them arrived); {len(deliveries)} deliveries, {len(deliveries) - len(seen)} repeated; "
        f"{counts['connections']} connections; ready again after "
        + " ".join(f"{seconds:.2f}" for seconds in restart_seconds) + " s"
    )

    def none_of(what, violations):
        violations = list(violations)
        examples = ", ".join(map(str, violations[:5]))
        report.check(f"{client}: {what}", not violations, f"{len(violations)} violations: {examples}")

    report.check(f"{client}: every kill was met at work", counts["connections"] == KILLS + 1,
                 f"{counts['connections']} connections of the publisher, {KILLS} kills")
    none_of("every confirmed message was consumed", sorted(confirmed - seen.keys()))
    none_of("every body was intact", (line for line, (_, found, _) in enumerate(deliveries) if found == 0))
    none_of("nothing appeared that was not published", (i for i in seen if i > counts["published"]))
    none_of("every repeated delivery said redelivered", repeats_unmarked(deliveries))
    none_of("no message overtook an earlier confirmed one", overtakings(deliveries, confirmed))
    none_of("every connection saw the order of publishing", disorders(deliveries))
    report.check(f"{client}: nothing was returned as unroutable", counts["returned"] == 0, counts["returned"])
    report.check(f"{client}: the queue was empty in the end", left == 0, f"{left} messages left")


def read_publisher(path):
    counts, confirmed = {}, set()
    for line in path.read_text().splitlines():
        *name, number = line.split()
        if name:
            counts[name[0]] = int(number)
        else:
            confirmed.add(int(number))
    return counts, confirmed


def read_consumer(path):
    """Each delivery as (connection, id, redelivered)."""
    return [tuple(map(int, line.split())) for line in path.read_text().splitlines()]


def repeats_unmarked(deliveries):
    seen = set()
    for _, message_id, redelivered in deliveries:
        if message_id in seen and not redelivered:
            yield message_id
        seen.add(message_id)


def overtakings(deliveries, confirmed):
    """Ids first seen while an earlier confirmed one had not been."""
    seen = set()
    earlier = iter(sorted(confirmed))
    # The lowest confirmed id that has not been seen.
    missing = next(earlier, None)
    for _, message_id, _ in deliveries:
        if missing is not None and message_id > missing and message_id not in seen:
            yield f"{message_id} before {missing}"
        seen.add(message_id)
        while missing in seen:
            missing = next(earlier, None)


def disorders(deliveries):
    """Ids that came, on one connection of the consumer, after a later one: nothing is given back there."""
    last = (0, 0)
    for connection, message_id, _ in deliveries:
        if (connection, message_id) <= last:
            yield message_id
        last = (connection, message_id)


if __name__ == "__main__":
    main()
