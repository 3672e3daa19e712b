"""Hosts that find each other in a directory, and what a directory's absence costs: nothing that was known."""

import base64
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import urllib.error
import urllib.request
from pathlib import Path

from broker import free_port, kill_group

BINARY = os.environ["PILLARBOX_BIN"]
WORK = Path(os.environ["INTEROP_WORK"])
SECRET = "a secret of sixteen bytes or more"
PREFIX = "pillarbox/hosts"
PATIENCE = 40


class Host:
    """A broker with a peer listener and one directory."""

    def __init__(self, name, home, settings):
        self.name, self.data, self.settings = name, home / name, settings
        self.native, self.peer = free_port(), free_port()
        self.process = None

    def start(self):
        variables = {f"PILLARBOX__{key}": value for key, value in self.settings.items()}
        for listener in ["AMQP", "STOMP", "HTTP"]:
            variables[f"PILLARBOX__LISTEN__{listener}"] = "none"
        variables |= {"PILLARBOX__PEERS__SECRET": SECRET, "PILLARBOX__PEERS__DIRECTORY_TTL": "10s"}
        self.log = open(self.data.parent / f"{self.name}.log", "a")
        command = [BINARY, "serve", "--data-dir", self.data, "--host-name", self.name, "--native-listen",
                   f"127.0.0.1:{self.native}", "--peer-listen", f"127.0.0.1:{self.peer}"]
        self.process = subprocess.Popen(
            [str(part) for part in command], env=dict(os.environ, **variables), stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=self.log, text=True, start_new_session=True)
        for line in self.process.stdout:
            if line.strip() == "ready":
                return
        raise RuntimeError(f"{self.name} did not start")

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(30) == 0, f"{self.name} did not stop in order"
        self.process = None

    def kill(self):
        if self.process:
            kill_group(self.process)
            self.process = None

    @property
    def id(self):
        return json.loads((self.data / "host.json").read_text())["id"]

    def knows(self):
        """Names of the hosts that it met."""
        try:
            return {host["name"] for host in json.loads((self.data / "hosts.json").read_text())}
        except FileNotFoundError:
            return set()

    def run(self, *arguments):
        command = [BINARY, *arguments, "--broker", f"127.0.0.1:{self.native}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
        assert done.returncode == 0, f"{self.name}: pillarbox {' '.join(arguments)}: {done.stderr.strip()}"
        return done.stdout.strip()

    def serves(self):
        """Its own mailboxes do their work."""
        self.run("mailbox", "declare", f"{self.name}-own")
        self.run("push", f"{self.name}-own", "here")
        assert self.run("pull", f"{self.name}-own") == "here"


class Server:
    """A directory's own server, on ports that stay the same."""

    def __init__(self, home):
        self.home, self.process = home, None
        self.ports = [free_port() for _ in range(6)]

    def start(self, empty=False):
        directory = self.home / type(self).__name__.lower()
        if empty:
            shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(exist_ok=True)
        log = open(self.home / "directory.log", "a")
        self.process = subprocess.Popen(self.command(directory), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                        start_new_session=True)
        eventually("the directory answers", self.keys)

    def kill(self):
        if self.process:
            kill_group(self.process)
            self.process = None

    def ask(self, method, path, body=None):
        request = urllib.request.Request(f"http://127.0.0.1:{self.ports[0]}{path}", method=method,
                                         data=body if body is None else body.encode())
        with urllib.request.urlopen(request, timeout=5) as response:
            return json.loads(response.read() or "null")


class Consul(Server):
    feature = "consul"

    def command(self, directory):
        http, dns, serf, wan, rpc, _ = self.ports
        # Not `-dev`: what is stale after a restart has to be on a disk.
        return [os.environ["CONSUL"], "agent", "-server", "-bootstrap-expect=1", f"-data-dir={directory}",
                "-bind=127.0.0.1", "-client=127.0.0.1", f"-http-port={http}", f"-dns-port={dns}", "-grpc-port=-1",
                f"-serf-lan-port={serf}", f"-serf-wan-port={wan}", f"-server-port={rpc}", "-raft-protocol=3",
                "-hcl=performance { raft_multiplier = 1 }", "-hcl=leave_on_terminate = false"]

    def settings(self):
        return {"PEERS__CONSUL": f"http://127.0.0.1:{self.ports[0]}"}

    def keys(self):
        self.leader()
        try:
            return {pair["Key"].rsplit("/", 1)[1] for pair in self.ask("GET", f"/v1/kv/{PREFIX}/?recurse=true")}
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return set()
            raise

    def leader(self):
        if not self.ask("GET", "/v1/status/leader"):
            raise RuntimeError("no leader")

    def write(self, key, value):
        self.ask("PUT", f"/v1/kv/{PREFIX}/{key}", value)

    def drop(self):
        self.ask("DELETE", f"/v1/kv/{PREFIX}/?recurse=true")


class Etcd(Server):
    feature = "etcd"

    def command(self, directory):
        client, peer = (f"http://127.0.0.1:{port}" for port in self.ports[:2])
        return [os.environ["ETCD"], "--data-dir", directory, "--listen-client-urls", client, "--advertise-client-urls",
                client, "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
                "--initial-cluster", f"default={peer}"]

    def settings(self):
        return {"PEERS__ETCD": f"http://127.0.0.1:{self.ports[0]}"}

    def range(self):
        ends = (f"{PREFIX}/", f"{PREFIX}0")
        return dict(zip(["key", "range_end"], [base64.b64encode(end.encode()).decode() for end in ends]))

    def keys(self):
        found = self.ask("POST", "/v3/kv/range", json.dumps(self.range())).get("kvs", [])
        return {base64.b64decode(pair["key"]).decode().rsplit("/", 1)[1] for pair in found}

    def write(self, key, value):
        pair = {"key": f"{PREFIX}/{key}", "value": value}
        self.ask("POST", "/v3/kv/put",
                 json.dumps({name: base64.b64encode(text.encode()).decode() for name, text in pair.items()}))

    def drop(self):
        self.ask("POST", "/v3/kv/deleterange", json.dumps(self.range()))


def eventually(what, condition):
    """Until it is true; an answer that it raises counts as not yet."""
    end, reason = time.monotonic() + PATIENCE, "it did not"
    while time.monotonic() < end:
        try:
            if condition() not in (False, None):
                return
        except Exception as error:  # noqa: BLE001
            reason = repr(error)
        time.sleep(0.2)
    raise AssertionError(f"not within {PATIENCE} s: {what} ({reason})")


def met(*hosts):
    for host in hosts:
        others = {other.name for other in hosts if other is not host}
        eventually(f"{host.name} meets {others}", lambda: others <= host.knows())


def carries(origin, target, word):
    """A message finds its way to a mailbox that lives on another host."""
    mailbox = f"at-{target.name}"
    target.run("mailbox", "declare", mailbox)
    # A host that does not know of the mailbox yet says so.
    eventually(f"{origin.name} pushes to {mailbox}", lambda: origin.run("push", mailbox, word) is not None)
    eventually(f"{mailbox} gets it", lambda: target.run("pull", mailbox) == word)


def the_directory_comes_late(server, a, b):
    for host in (a, b):
        host.start()
        host.serves()
    assert not a.knows() and not b.knows()
    server.start()
    met(a, b)
    eventually("both are written down", lambda: server.keys() == {a.id, b.id})
    carries(a, b, "late")
    carries(b, a, "late")


def the_directory_goes(server, a, b):
    server.kill()
    for host in (a, b):
        host.serves()
    carries(a, b, "gone")
    # A start without a directory knows whom it knew.
    b.kill()
    b.start()
    b.serves()
    carries(a, b, "again")
    carries(b, a, "again")


def the_directory_comes_back_empty(server, a, b):
    server.start(empty=True)
    eventually("both are written down anew", lambda: server.keys() == {a.id, b.id})
    carries(a, b, "empty")
    server.drop()
    eventually("both are written down anew", lambda: server.keys() == {a.id, b.id})
    carries(b, a, "dropped")


def the_directory_is_old_and_wrong(server, a, b):
    nowhere = f"127.0.0.1:{free_port()}"
    old = {"id": b.id, "name": "b", "incarnation": 1, "run": 1, "tags": [], "address": nowhere}
    server.write("old", json.dumps(old))
    for number, wrong in enumerate(["", "no JSON", "{}", '{"id": 7}', "\0", "[" * 10_000]):
        server.write(f"wrong-{number}", wrong)
    server.write("stranger", json.dumps(old | {"id": "0" * 31 + "7", "name": "stranger"}))
    time.sleep(2)
    carries(a, b, "old")
    b.kill()
    b.start()
    carries(a, b, "older")
    # It restarts with what it had on its disk.
    server.kill()
    server.start()
    carries(b, a, "stale")
    eventually("both are there", lambda: {a.id, b.id} <= server.keys())


def who_leaves_is_taken_out(server, a, b):
    b.stop()
    eventually("b is taken out", lambda: b.id not in server.keys())
    b.start()
    eventually("b is back", lambda: b.id in server.keys())
    b.kill()
    # Its session or lease runs out: Consul takes up to twice the time, and some more.
    eventually("b is taken out", lambda: b.id not in server.keys())
    a.serves()
    b.start()
    eventually("b is back", lambda: b.id in server.keys())
    carries(a, b, "back")


SCENARIOS = [the_directory_comes_late, the_directory_goes, the_directory_comes_back_empty,
             the_directory_is_old_and_wrong, who_leaves_is_taken_out]


def run(kind, failures):
    name = kind.feature
    if not os.environ[name.upper()]:
        print(f"skip {name}: the program is not there and cannot be installed")
        return
    with tempfile.TemporaryDirectory(prefix=f"{name}-", dir=WORK) as home:
        server = kind(Path(home))
        a, b = (Host(letter, Path(home), server.settings()) for letter in "ab")
        try:
            for scenario in SCENARIOS:
                label = f"{name}: {scenario.__name__.replace('_', ' ')}"
                begin = time.monotonic()
                try:
                    scenario(server, a, b)
                except Exception as error:  # noqa: BLE001
                    traceback.print_exc()
                    print(f"FAIL {label}: {error}")
                    failures.append(label)
                    for log in Path(home).glob("*.log"):
                        shutil.copy(log, WORK / f"{name}-{log.name}")
                    # What follows stands on it.
                    return
                print(f"ok {label} ({time.monotonic() - begin:.0f} s)")
        finally:
            for process in (a, b, server):
                process.kill()


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    failures = []
    for kind in (Consul, Etcd):
        run(kind, failures)
    print(f"{len(failures)} failed")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
