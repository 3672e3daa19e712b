"""The tasks of the chord case: results in files, because rpc results cannot join a chord."""

import os

from celery import Celery

results = os.path.join(os.environ["INTEROP_WORK"], "results")
os.makedirs(results, exist_ok=True)
app = Celery("chords", broker=os.environ["AMQP_URL"], backend=f"file://{results}")
app.conf.update(task_default_queue="chords", broker_connection_retry_on_startup=True)


@app.task
def add(x, y):
    return x + y


@app.task
def total(numbers):
    return sum(numbers)
