"""The newer command-line tool for RabbitMQ's HTTP API, through its tree of commands."""

import json
import os
import subprocess
from pathlib import Path

from report import Report

HOST = os.environ["AMQP_HOST"]
PORT = os.environ["HTTP_PORT"]
TOOL = os.environ["RABBITMQADMIN"]
WORK = Path(os.environ["INTEROP_WORK"])
# Nothing of whoever runs this.
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("RABBITMQADMIN_")} | {"HOME": str(WORK)}


def tool(*arguments, fails=False, vhost="/"):
    command = [TOOL, "--non-interactive", "--host", HOST, "--port", PORT, "--vhost", vhost, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=ENVIRONMENT)
    if (done.returncode != 0) != fails:
        raise AssertionError(f"{' '.join(arguments)}: {done.returncode} {done.stdout}{done.stderr}")
    return done.stdout + done.stderr


def says(text, *arguments, **how):
    found = tool(*arguments, **how)
    assert text in found, f"{' '.join(arguments)}: no {text!r} in {found}"


def node():
    return next(word for word in tool("list", "nodes").split() if "@" in word)


def looking():
    says("Pillarbox", "show", "overview")
    for verb in ["churn", "endpoint"]:
        tool("show", verb)
    for verb in ["memory_breakdown_in_bytes", "memory_breakdown_in_percent"]:
        says("Other (used by the runtime)", "show", verb, "--node", node())
    for what in ["nodes", "users", "vhosts", "permissions", "connections", "channels", "queues", "exchanges", "bindings", "consumers",
                 "policies", "operator_policies", "vhost_limits", "user_limits", "feature_flags", "deprecated_features",
                 "deprecated_features_in_use"]:
        tool("list", what)
    for group in ["nodes", "users", "vhosts", "permissions", "connections", "channels", "queues", "exchanges", "bindings", "streams",
                  "policies", "operator_policies", "vhost_limits", "user_limits", "feature_flags", "deprecated_features",
                  "global_parameters"]:
        tool(group, "list")
    tool("connections", "list_of_user", "--username", "guest")
    tool("plugins", "list_all")
    tool("auth_attempts", "stats", "--node", node())
    says("password hash", "passwords", "salt_and_hash", "secret")


def health():
    for check in ["local_alarms", "cluster_wide_alarms", "node_is_quorum_critical"]:
        tool("health_check", check)
    tool("health_check", "port_listener", "--port", os.environ["AMQP_PORT"])
    tool("health_check", "port_listener", "--port", "1", fails=True)
    tool("health_check", "protocol_listener", "--protocol", "amqp")
    tool("health_check", "protocol_listener", "--protocol", "mqtt", fails=True)
    tool("rebalance", "queues")
    tool("feature_flags", "enable", "--name", "quorum_queue")
    tool("feature_flags", "enable_all")


def topology():
    tool("declare", "exchange", "--name", "nx", "--type", "topic")
    tool("declare", "queue", "--name", "nq", "--type", "classic", "--durable", "true", "--arguments", '{"x-max-length": 100}')
    tool("declare", "queue", "--name", "nquorum", "--type", "quorum")
    tool("declare", "stream", "--name", "ns", "--expiration", "1D", "--max-length-bytes", "1000000")
    says("inequivalent", "declare", "queue", "--name", "nq", "--type", "quorum", fails=True)
    tool("declare", "binding", "--source", "nx", "--destination-type", "queue", "--destination", "nq", "--routing-key", "a.#")
    says("a.#", "list", "bindings")
    says("nq", "queues", "show", "--name", "nq")
    delete = ["bindings", "delete", "--source", "nx", "--destination-type", "queue", "--destination", "nq", "--routing-key", "a.#"]
    tool(*delete)
    tool(*delete, fails=True)
    tool(*delete, "--idempotently")
    tool("bindings", "delete", "--source", "none", "--destination-type", "queue", "--destination", "none", "--routing-key", "a",
         "--idempotently")
    for name in ["nquorum", "ns"]:
        tool("delete", "queue", "--name", name)


def messages():
    tool("declare", "binding", "--source", "nx", "--destination-type", "queue", "--destination", "nq", "--routing-key", "a.#")
    tool("publish", "message", "--exchange", "nx", "--routing-key", "a.b", "--payload", "hello, world", "--properties",
         '{"delivery_mode": 2}')
    says("hello, world", "get", "messages", "--queue", "nq", "--count", "2", "--ack-mode", "ack_requeue_true")
    says("hello, world", "get", "messages", "--queue", "nq", "--ack-mode", "ack_requeue_false")
    tool("publish", "message", "--exchange", "nx", "--routing-key", "a.b", "--payload", "1")
    tool("purge", "queue", "--name", "nq")
    assert "hello" not in tool("get", "messages", "--queue", "nq", "--ack-mode", "ack_requeue_false")


def policies():
    tool("declare", "policy", "--name", "np", "--pattern", "^nq$", "--apply-to", "queues", "--priority", "1", "--definition",
         '{"max-length": 7, "max-length-bytes": 1000}')
    says("np", "policies", "list_matching_object", "--name", "nq", "--type", "queues")
    tool("policies", "declare_override", "--name", "np", "--override-name", "npo", "--definition", '{"max-length": 12345}')
    says("12345", "policies", "list")
    tool("policies", "declare_blanket", "--name", "nb", "--apply-to", "queues", "--definition", '{"max-length": 99}')
    tool("policies", "update_definition", "--name", "np", "--definition-key", "max-length", "--new-value", "54321")
    says("54321", "policies", "list")
    tool("policies", "delete_definition_keys", "--name", "np", "--definition-keys", "max-length")
    assert "54321" not in tool("policies", "list")
    says("not recognised", "declare", "policy", "--name", "bad", "--pattern", "^nq$", "--apply-to", "queues", "--priority", "1",
         "--definition", '{"foo": "bar"}', fails=True)
    tool("declare", "operator_policy", "--name", "nop", "--pattern", "^nq$", "--apply-to", "queues", "--priority", "1", "--definition",
         '{"max-length": 70}')
    says("nop", "list", "operator_policies")
    tool("delete", "operator_policy", "--name", "nop")
    for name in ["np", "npo", "nb"]:
        tool("delete", "policy", "--name", name)


def people():
    tool("declare", "vhost", "--name", "nv", "--description", "of a test", "--default-queue-type", "quorum", "--tracing")
    tool("declare", "user", "--name", "nu", "--password", "np", "--tags", "monitoring")
    tool("declare", "permissions", "--user", "nu", "--configure", ".*", "--read", ".*", "--write", ".*", vhost="nv")
    says("nu", "list", "permissions")
    tool("declare", "vhost_limit", "--name", "max-queues", "--value", "100", vhost="nv")
    says("max-queues", "list", "vhost_limits", vhost="nv")
    tool("declare", "user_limit", "--user", "nu", "--name", "max-connections", "--value", "5")
    says("max-connections", "list", "user_limits")
    tool("delete", "vhost_limit", "--name", "max-queues", vhost="nv")
    tool("delete", "user_limit", "--user", "nu", "--name", "max-connections")
    tool("declare", "parameter", "--component", "c", "--name", "npar", "--value", '{"a": 1}')
    says("npar", "parameters", "list_all")
    tool("delete", "parameter", "--component", "c", "--name", "npar")
    tool("global_parameters", "set", "--name", "ng", "--value", '{"b": 2}')
    says("ng", "global_parameters", "list")
    tool("global_parameters", "clear", "--name", "ng")
    tool("delete", "permissions", "--user", "nu", vhost="nv")
    tool("users", "delete", "--name", "nu")
    tool("users", "delete", "--name", "nu", "--idempotently")
    tool("vhosts", "delete", "--name", "nv")
    tool("close", "user_connections", "--username", "guest")


def moving():
    """Neither shovels nor federation are there: nothing runs, and what is asked for is kept as a parameter."""
    tool("shovels", "list_all")
    tool("federation", "list_all_links")
    tool("shovels", "declare_amqp091", "--name", "nsh", "--source-uri", "amqp://localhost", "--destination-uri", "amqp://localhost",
         "--source-queue", "nq", "--destination-queue", "nq2")
    tool("shovels", "delete", "--name", "nsh")
    tool("federation", "declare_upstream", "--name", "nf", "--uri", "amqp://localhost")
    says("nf", "federation", "list_all_upstreams")
    tool("federation", "delete_upstream", "--name", "nf")


def definitions():
    whole, one = WORK / "definitions.json", WORK / "vhost.json"
    tool("definitions", "export", "--file", str(whole))
    exported = json.loads(whole.read_text())
    assert any(it["name"] == "nq" for it in exported["queues"]), exported
    tool("definitions", "export_from_vhost", "--file", str(one))
    without = json.loads(tool("definitions", "export", "--transformations", "exclude_users", "--stdout"))
    assert not without["users"], without
    tool("delete", "queue", "--name", "nq")
    tool("definitions", "import", "--file", str(whole))
    says("nq", "list", "queues")
    tool("delete", "queue", "--name", "nq")
    tool("definitions", "import_into_vhost", "--file", str(one))
    says("nq", "list", "queues")
    tool("delete", "queue", "--name", "nq")
    tool("delete", "exchange", "--name", "nx")
    tool("delete", "queue", "--name", "nq", fails=True)


if __name__ == "__main__":
    report = Report()
    for scenario in [looking, health, topology, messages, policies, people, moving, definitions]:
        report.run(scenario.__name__, scenario)
    report.finish()
