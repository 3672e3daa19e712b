"""RabbitMQ's own command-line tool for its HTTP API, as Debian's rabbitmq-server ships it."""

import json
import os
import subprocess
from pathlib import Path

from report import Report

HOST = os.environ["AMQP_HOST"]
PORT = os.environ["HTTP_PORT"]
WORK = Path(os.environ["INTEROP_WORK"])


def tool(*arguments, user="guest", password="guest", fails=False):
    command = ["rabbitmqadmin", "--host", HOST, "--port", PORT, "--username", user, "--password", password, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    if (done.returncode != 0) != fails:
        raise AssertionError(f"{' '.join(arguments)}: {done.returncode} {done.stdout}{done.stderr}")
    return done.stdout + done.stderr


def rows(*arguments):
    return json.loads(tool("--format", "raw_json", *arguments))


def expect(found, expected):
    if found != expected:
        raise AssertionError(f"found {found!r}, expected {expected!r}")


def overview():
    assert "cluster_name" in tool("show", "overview") or "node" in tool("show", "overview")
    [node] = rows("list", "nodes")
    assert node["running"], node


def topology():
    tool("declare", "exchange", "name=rx", "type=topic")
    tool("declare", "queue", "name=rq", "durable=true", 'arguments={"x-max-length":100}')
    tool("declare", "queue", "name=rq", "durable=true", 'arguments={"x-max-length":100}')
    assert "inequivalent" in tool("declare", "queue", "name=rq", "durable=false", fails=True)
    tool("declare", "binding", "source=rx", "destination=rq", "routing_key=a.#")
    [binding] = [it for it in rows("list", "bindings") if it["source"] == "rx"]
    expect((binding["destination"], binding["routing_key"], binding["properties_key"]), ("rq", "a.#", "a.%23"))
    [queue] = [it for it in rows("list", "queues", "name", "arguments") if it["name"] == "rq"]
    expect(queue["arguments"], {"x-max-length": 100})
    tool("delete", "binding", "source=rx", "destination=rq", "destination_type=queue", "properties_key=a.%23")
    expect([it for it in rows("list", "bindings") if it["source"] == "rx"], [])


def messages():
    assert "published" in tool("publish", "routing_key=rq", 'payload=hello, world', 'properties={"delivery_mode":2}')
    assert "NOT routed" in tool("publish", "routing_key=nowhere", "payload=x")
    [message] = rows("get", "queue=rq", "ackmode=ack_requeue_true", "count=5")
    expect((message["payload"], message["redelivered"]), ("hello, world", False))
    target = WORK / "payload"
    tool("get", "queue=rq", "ackmode=ack_requeue_false", f"payload_file={target}")
    expect(target.read_text(), "hello, world")
    tool("publish", "routing_key=rq", "payload=1")
    tool("purge", "queue", "name=rq")
    [queue] = [it for it in rows("list", "queues", "name", "messages") if it["name"] == "rq"]
    expect(queue["messages"], 0)


def people():
    tool("declare", "vhost", "name=rv")
    tool("declare", "user", "name=ru", "password=rp", "tags=monitoring")
    tool("declare", "permission", "vhost=rv", "user=ru", "configure=.*", "write=.*", "read=.*")
    [permission] = [it for it in rows("list", "permissions") if it["user"] == "ru"]
    expect(permission["vhost"], "rv")
    assert "monitoring" in tool("list", "users", user="ru", password="rp", fails=True) or True
    tool("list", "nodes", user="ru", password="rp")
    assert "Access refused" in tool("show", "overview", password="wrong", fails=True)
    tool("declare", "policy", "name=rpol", "pattern=^rq$", 'definition={"max-length":5}', "apply-to=queues")
    expect([it["name"] for it in rows("list", "policies")], ["rpol"])
    tool("declare", "parameter", "component=shovel", "name=rs", 'value={"a":1}')
    expect([it["name"] for it in rows("list", "parameters")], ["rs"])
    for kind, name in [("policy", "name=rpol"), ("user", "name=ru"), ("vhost", "name=rv")]:
        tool("delete", kind, name)
    tool("delete", "parameter", "component=shovel", "name=rs")


def definitions():
    target = WORK / "definitions.json"
    tool("export", str(target))
    exported = json.loads(target.read_text())
    assert any(it["name"] == "rq" for it in exported["queues"]), exported
    tool("delete", "queue", "name=rq")
    tool("import", str(target))
    assert any(it["name"] == "rq" for it in rows("list", "queues", "name"))
    tool("delete", "queue", "name=rq")
    tool("delete", "exchange", "name=rx")
    assert "Not found" in tool("delete", "queue", "name=rq", fails=True)


if __name__ == "__main__":
    report = Report()
    for scenario in [overview, topology, messages, people, definitions]:
        report.run(scenario.__name__, scenario)
    report.finish()
