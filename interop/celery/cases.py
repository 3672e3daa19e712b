"""Celery's features through the broker, with two real workers.

No result is due a whole second after it is waited for: Celery waits in steps of one second, and what arrives
just when a step ends is sometimes lost in the client, with any broker.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from datetime import datetime, timedelta, timezone

from celery import chain, chord, group
from celery.exceptions import TaskRevokedError

import chords as chords_app
import tasks
from report import Report

WAIT = 30
WORKERS = ["one", "two"]


def unique(name):
    return f"{name}-{uuid.uuid4().hex[:8]}"


def marks(name, count):
    """The lines a task left behind, once there are `count` of them."""
    deadline = time.monotonic() + WAIT
    path = tasks.MARKS / name
    while True:
        lines = path.read_text().split() if path.exists() else []
        if len(lines) >= count or time.monotonic() > deadline:
            return lines
        time.sleep(0.1)


def expect(found, expected):
    assert found == expected, f"found {found!r}, expected {expected!r}"


def task_result():
    expect(tasks.add.delay(2, 3).get(WAIT), 5)


def task_error():
    result = tasks.fail.delay()
    try:
        result.get(WAIT)
    except ValueError as error:
        expect((str(error), result.state), ("on purpose", "FAILURE"))
    else:
        raise AssertionError("no error")


def many_tasks():
    results = [tasks.add.delay(number, number) for number in range(200)]
    expect([result.get(WAIT) for result in results], [2 * number for number in range(200)])


def groups():
    expect(group(tasks.add.s(n, n) for n in range(10))().get(WAIT), [2 * n for n in range(10)])


def chains():
    expect(chain(tasks.add.s(1, 2), tasks.add.s(3), tasks.add.s(4))().get(WAIT), 10)


def chunks():
    expect(tasks.add.chunks(zip(range(6), range(6)), 2)().get(WAIT), [[0, 2], [4, 6], [8, 10]])


def countdown():
    begin = time.time()
    ended = tasks.note_time.apply_async([unique("countdown")], countdown=1.5).get(WAIT)
    assert 1.4 < ended - begin < 10, ended - begin


def eta_beyond_prefetch():
    """More waiting tasks than the prefetch count: the worker raises it on the live consumer to get at others."""
    when = datetime.now(timezone.utc) + timedelta(seconds=25)
    waiting = [tasks.add.apply_async([n, 1], eta=when) for n in range(30)]
    # A worker takes them in slowly, some each second.
    expect(tasks.add.delay(20, 22).get(22), 42)
    expect([result.get(WAIT) for result in waiting], [n + 1 for n in range(30)])


def retries():
    expect(tasks.succeed_at_third_try.delay().get(WAIT), 2)


def acks_late_requeue():
    name = unique("requeue")
    expect(tasks.return_once.delay(name).get(WAIT), "second time")
    expect(marks(name, 2), ["False", "True"])


def worker_lost():
    name = unique("lost")
    expect(tasks.kill_worker_once.delay(name).get(WAIT), "survived")
    expect(len(marks(name, 2)), 2)


def revoke():
    result = tasks.note_time.apply_async([unique("revoked")], countdown=3)
    time.sleep(0.5)
    result.revoke()
    try:
        result.get(WAIT)
    except TaskRevokedError:
        return
    raise AssertionError("it ran")


def revoke_running():
    result = tasks.sleep.delay(60)
    time.sleep(1)
    result.revoke(terminate=True)
    try:
        result.get(WAIT)
    except TaskRevokedError:
        return
    raise AssertionError("it ran to its end")


def expires():
    result = tasks.add.apply_async([1, 1], countdown=1.5, expires=0.5)
    try:
        result.get(WAIT)
    except TaskRevokedError:
        return
    raise AssertionError("it ran")


def inspect():
    found = tasks.app.control.inspect(timeout=5)
    expect(sorted(found.ping()), [f"{name}@interop" for name in WORKERS])
    for of_worker in found.registered().values():
        assert "tasks.add" in of_worker
    queues = {queue["name"] for queue in found.active_queues()["one@interop"]}
    assert {"celery", "ranked"} <= queues, queues


def remote_control():
    replies = tasks.app.control.rate_limit("tasks.sleep", "100/s", reply=True, timeout=5)
    expect(len(replies), 2)
    replies = tasks.app.control.broadcast("pool_grow", {"n": 1}, reply=True, timeout=5, destination=["one@interop"])
    expect([list(reply) for reply in replies], [["one@interop"]])


def broadcast():
    name = unique("broadcast")
    tasks.note_worker.delay(name)
    expect(sorted(marks(name, 2)), WORKERS)


def priorities():
    """Sent while nobody takes them, then run from the highest down."""
    name = unique("ranks")
    control = tasks.app.control
    control.cancel_consumer("ranked", reply=True)
    for rank in [1, 9, 5, 3, 7]:
        tasks.note_rank.apply_async([name, rank], priority=rank)
    time.sleep(0.5)
    control.add_consumer("ranked", destination=["two@interop"], reply=True)
    expect(marks(name, 5), ["9", "7", "5", "3", "1"])
    control.add_consumer("ranked", destination=["one@interop"], reply=True)


def progress_states():
    states = []
    result = tasks.report_progress.delay()

    def on_message(message):
        if message["task_id"] == result.id:
            states.append(message["status"])

    expect(result.get(WAIT, on_message=on_message), "end")
    expect(states, ["STARTED", "PROGRESS", "SUCCESS"])


def chords():
    """The rpc results cannot join a chord; a worker with results in files can."""
    worker = start_worker("chords", app="chords")
    try:
        result = chord((chords_app.add.s(n, n) for n in range(10)), chords_app.total.s())()
        expect(result.get(WAIT), 90)
    finally:
        worker.terminate()
        worker.wait()


def events():
    """Task events reach a monitor through the topic exchange."""
    seen = []
    with tasks.app.connection() as connection:
        receiver = tasks.app.events.Receiver(connection, handlers={"task-succeeded": seen.append})
        with receiver.consumer_context(wakeup=False) as (own_connection, _, _):
            result = tasks.add.delay(1, 1)
            while not any(event["uuid"] == result.id for event in seen):
                own_connection.drain_events(timeout=WAIT)


CASES = {
    "task and result": task_result,
    "error as result": task_error,
    "200 tasks": many_tasks,
    "group": groups,
    "chain": chains,
    "chunks": chunks,
    "chord": chords,
    "countdown": countdown,
    "ETA beyond the prefetch count": eta_beyond_prefetch,
    "retry": retries,
    "acks_late and requeue": acks_late_requeue,
    "worker process lost": worker_lost,
    "revoke": revoke,
    "revoke a running task": revoke_running,
    "expires": expires,
    "inspect": inspect,
    "remote control": remote_control,
    "broadcast": broadcast,
    "priorities": priorities,
    "progress states": progress_states,
    "events": events,
}


def start_worker(name, app="tasks"):
    log = open(f"{os.environ['INTEROP_WORK']}/worker-{name}.log", "w")
    command = [
        sys.executable, "-m", "celery", "--app", app, "worker", "--hostname", f"{name}@interop",
        "--concurrency", "1", "--loglevel", "info", "--events",
    ]
    return subprocess.Popen(command, env=dict(os.environ, WORKER=name), stdout=log, stderr=log)


def main():
    shutil.rmtree(tasks.MARKS, ignore_errors=True)
    tasks.MARKS.mkdir()
    report = Report()
    workers = [start_worker(name) for name in WORKERS]
    try:
        deadline = time.monotonic() + 60
        while len(tasks.app.control.ping(timeout=1)) < len(WORKERS) and time.monotonic() < deadline:
            pass
        for name, case in CASES.items():
            report.run(name, case)
    finally:
        for worker in workers:
            worker.send_signal(signal.SIGTERM)
        for worker in workers:
            worker.wait()
    report.finish()


if __name__ == "__main__":
    main()
