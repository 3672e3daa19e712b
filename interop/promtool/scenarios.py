"""Prometheus' own linter on the metrics, idle and with 10,000 queues, which must come within a second."""

import base64
import json
import os
import subprocess
import time
import urllib.request

from report import Report

BASE = f"http://{os.environ['AMQP_HOST']}:{os.environ['HTTP_PORT']}"
LOGIN = "Basic " + base64.b64encode(b"guest:guest").decode()
QUEUES = int(os.environ.get("PROMTOOL_QUEUES", "10000"))
# Names that RabbitMQ chose long ago, which the linter would have otherwise.
KNOWN = ("non-histogram and non-summary metrics should not have",)


def ask(path, body=None):
    request = urllib.request.Request(BASE + path, headers={"authorization": LOGIN, "content-type": "application/json"})
    if body is not None:
        request.data = json.dumps(body).encode()
    begin = time.monotonic()
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.read(), time.monotonic() - begin


def lint(path):
    text, _ = ask(path)
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, timeout=60)
    lines = [line for line in done.stderr.decode().splitlines() if line and not any(known in line for known in KNOWN)]
    assert not lines, "; ".join(lines[:10])
    assert b"rabbitmq_identity_info{" in text


def many():
    queues = [{"name": f"p{n:05}", "vhost": "/", "durable": False, "auto_delete": False, "arguments": {}} for n in range(QUEUES)]
    ask("/api/definitions", {"queues": queues})
    for path, seconds_max in [("/metrics", 1), ("/metrics/per-object", 1), (f"/api/queues?page={QUEUES // 200}&page_size=100&sort=name", 0.2)]:
        text, seconds = min((ask(path) for _ in range(3)), key=lambda it: it[1])
        print(f"{path}: {len(text)} bytes in {seconds:.3f} s")
        assert seconds < seconds_max, f"{path} took {seconds:.3f} s"
    lint("/metrics/per-object")


if __name__ == "__main__":
    report = Report()
    report.run("metrics", lint, "/metrics")
    report.run("one family", lint, "/metrics/detailed?family=queue_metrics")
    report.run(f"{QUEUES} queues", many)
    report.finish()
