"""The tasks that the worker of `cases.py` runs."""

import os
import time
from pathlib import Path

from celery import Celery, Task
from celery.exceptions import Reject
from kombu import Exchange, Queue
from kombu.common import Broadcast

# What tasks leave behind for the cases to see.
MARKS = Path(os.environ["INTEROP_WORK"]) / "marks"

app = Celery("tasks", broker=os.environ["AMQP_URL"], backend="rpc://")
app.conf.update(
    task_default_queue="celery",
    task_queues=[
        Queue("celery", Exchange("celery"), routing_key="celery"),
        Queue("ranked", Exchange("ranked"), routing_key="ranked", queue_arguments={"x-max-priority": 10}),
        Broadcast("everyone"),
    ],
    task_routes={
        "tasks.note_rank": {"queue": "ranked"},
        "tasks.note_worker": {"exchange": "everyone", "queue": "everyone"},
    },
    worker_prefetch_multiplier=1,
    task_track_started=True,
    result_expires=300,
    broker_connection_retry_on_startup=True,
)


def note(name, text):
    with open(MARKS / name, "a") as file:
        file.write(f"{text}\n")


@app.task
def add(x, y):
    return x + y


@app.task
def fail():
    raise ValueError("on purpose")


@app.task
def sleep(seconds):
    time.sleep(seconds)
    return seconds


@app.task
def note_time(name):
    note(name, time.time())
    return time.time()


@app.task(bind=True, max_retries=3)
def succeed_at_third_try(self: Task):
    if self.request.retries < 2:
        raise self.retry(countdown=0.2)
    return self.request.retries


@app.task(bind=True, acks_late=True)
def return_once(self: Task, name):
    """Given back to the queue the first time."""
    note(name, self.request.delivery_info["redelivered"])
    if not self.request.delivery_info["redelivered"]:
        raise Reject("once more", requeue=True)
    return "second time"


@app.task(acks_late=True, reject_on_worker_lost=True)
def kill_worker_once(name):
    """The worker process is lost with its first run."""
    first = not (MARKS / name).exists()
    note(name, os.getpid())
    if first:
        os._exit(1)
    return "survived"


@app.task
def note_rank(name, rank):
    note(name, rank)


@app.task(ignore_result=True)
def note_worker(name):
    note(name, os.environ["WORKER"])


@app.task(bind=True)
def report_progress(self: Task):
    self.update_state(state="PROGRESS", meta={"done": 1})
    time.sleep(0.5)
    return "end"
