"""What RabbitMQ's Grafana dashboards ask of Prometheus, asked of a real one that scrapes the broker under load.

Every panel joins its metric with `rabbitmq_identity_info`, so the check does too.
"""

import contextlib
import json
import os
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from pathlib import Path

import pika
from broker import free_port
from report import Report

HTTP = f"{os.environ['AMQP_HOST']}:{os.environ['HTTP_PORT']}"
WORK = Path(os.environ["INTEROP_WORK"])
QUEUES = 5
LOAD_SECONDS = 8
PATIENCE = 60
SETTINGS = """
global: {{ scrape_interval: 1s, evaluation_interval: 1s }}
scrape_configs:
  - job_name: rabbitmq-server
    metrics_path: {path}
    params: {{ family: [{families}] }}
    basic_auth: {{ username: guest, password: guest }}
    static_configs: [{{ targets: ["{http}"] }}]
"""


class Prometheus:
    def __init__(self, path, families=()):
        self.address = f"127.0.0.1:{free_port()}"
        directory = WORK / path.strip("/").replace("/", "-")
        directory.mkdir(parents=True, exist_ok=True)
        settings = directory / "prometheus.yml"
        settings.write_text(SETTINGS.format(path=path, families=", ".join(families), http=HTTP))
        self.log = open(directory / "log", "w")
        self.process = subprocess.Popen(
            ["prometheus", f"--config.file={settings}", f"--storage.tsdb.path={directory}/data-{os.getpid()}",
             f"--web.listen-address={self.address}"], stdout=self.log, stderr=self.log)

    def close(self):
        self.process.kill()
        self.process.wait()
        self.log.close()

    def ask(self, expression):
        """The values that the expression has now."""
        query = urllib.parse.urlencode({"query": expression})
        with urllib.request.urlopen(f"http://{self.address}/api/v1/query?{query}", timeout=10) as answer:
            found = json.load(answer)
        assert found["status"] == "success", found
        return [float(it["value"][1]) for it in found["data"]["result"]]

    def wait(self):
        end = time.monotonic() + PATIENCE
        while True:
            with contextlib.suppress(OSError):
                if self.ask("count_over_time(rabbitmq_identity_info[1m]) >= 2"):
                    return
            assert time.monotonic() < end, "Prometheus does not scrape"
            time.sleep(0.2)


def load(ended):
    """Something of everything that panels show."""
    parameters = pika.URLParameters(os.environ["AMQP_URL"])
    connection = pika.BlockingConnection(parameters)
    published, watched, settled = (connection.channel() for _ in range(3))
    watched.confirm_delivery()
    names = [f"dashboards-{n}" for n in range(QUEUES)]
    for name in names:
        watched.queue_declare(name, durable=True)
    taken, refused, fetched, held = names[:4]

    def take(channel, method, _properties, _body):
        channel.basic_ack(method.delivery_tag)

    def refuse(channel, method, _properties, _body):
        (channel.basic_ack if method.redelivered else channel.basic_nack)(method.delivery_tag)

    def keep(*_):
        pass

    settled.basic_consume(taken, take)
    settled.basic_consume(refused, refuse)
    settled.basic_consume(names[4], keep, auto_ack=True)
    # Fetched and never settled, so that something is ready and something is not.
    for _ in range(4):
        published.basic_publish("", held, b"held")
    settled.basic_get(held)
    while not ended.is_set():
        for name in names:
            watched.basic_publish("", name, b"x" * 200)
            published.basic_publish("", name, b"x" * 2000)
        published.basic_publish("", "nowhere", b"x")
        with contextlib.suppress(pika.exceptions.UnroutableError):
            watched.basic_publish("", "nowhere", b"x", mandatory=True)
        watched.basic_get(fetched, auto_ack=True)
        method, _, _ = watched.basic_get(fetched)
        watched.basic_ack(method.delivery_tag)
        watched.queue_declare("dashboards-passing")
        watched.basic_get("dashboards-passing", auto_ack=True)
        watched.queue_delete("dashboards-passing")
        pika.BlockingConnection(parameters).close()
        passing = connection.channel()
        passing.queue_declare(fetched, durable=True)
        passing.basic_publish("", fetched, b"x")
        passing.basic_get(fetched, auto_ack=True)
        passing.close()
        connection.process_data_events(0.1)
    connection.close()


def joined(expression, endpoint):
    """As the panels have it."""
    identity = f'rabbitmq_identity_info{{namespace="", rabbitmq_endpoint="{endpoint}"}}'
    return f"sum({expression} * on(instance, job) group_left(rabbitmq_cluster, rabbitmq_node) {identity}) by (rabbitmq_node)"


def wanted():
    for line in Path("metrics.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            name, state = line.split(maxsplit=1)
            yield name, state


def check(pages, name, state):
    if state.startswith("absent"):
        for page in pages.values():
            found = page.ask(name)
            assert not found, f"{name} is there: {found}; say so in metrics.txt"
        return
    expression = f"rate({name}[15s])" if state == "rate" else name
    for endpoint in ["aggregated", "per-object"]:
        found = pages[endpoint].ask(joined(expression, endpoint))
        assert len(found) == 1, f"{name}, {endpoint}, fills no panel: {found}"
        assert found[0] > 0, f"{name}, {endpoint}, is {found[0]} under load"


def every_queue(prometheus, prefix, endpoint):
    for name in ["queue_messages_ready", "queue_messages_unacked"]:
        [found] = prometheus.ask(joined(prefix + name, endpoint))
        assert found > 0, f"{name}: {found}"
    queues = prometheus.ask(f'{prefix}queue_messages_ready{{queue=~"dashboards-[0-9]"}}')
    assert len(queues) == QUEUES, queues


def main():
    report = Report()
    pages = {
        "aggregated": Prometheus("/metrics"),
        "per-object": Prometheus("/metrics/per-object"),
        "detailed": Prometheus("/metrics/detailed", ["queue_coarse_metrics", "queue_consumer_count"]),
    }
    ended = threading.Event()
    loading = threading.Thread(target=load, args=(ended,))
    loading.start()
    try:
        for page in pages.values():
            page.wait()
        time.sleep(LOAD_SECONDS)
        for name, state in wanted():
            report.run(name, check, pages, name, state)
        for endpoint, prefix in [("per-object", "rabbitmq_"), ("detailed", "rabbitmq_detailed_")]:
            report.run(f"every queue, {endpoint}", every_queue, pages[endpoint], prefix, endpoint)
        ended.set()
        loading.join()
    finally:
        ended.set()
        for page in pages.values():
            page.close()
    report.finish()


if __name__ == "__main__":
    main()
