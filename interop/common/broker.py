#!/usr/bin/env python3
"""A broker process that a test may stop, kill and start again on the same ports and data.

Python tests import this. Tests in other languages run this file: it starts the broker of PILLARBOX_BIN,
prints `port N`, and then answers `kill`, `stop` and `start` on standard input with a line `done`, and a listener's name
with its port.
"""

import contextlib
import os
import queue
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

START_TIME_MAX = 120
STOP_TIME_MAX = 30

LISTENING = re.compile(r"^listening (\S+) \S*:(\d+)$")


class Broker:
    """The broker at `binary`, in a process group of its own."""

    def __init__(self, binary, data_dir, settings=None):
        self.binary = binary
        # More of its environment.
        self.settings = settings or {}
        self.data_dir = data_dir
        self.process = None
        # Listener name to port, the same at every start.
        self.ports = {name: free_port() for name in ["amqp", "stomp", "http"]}

    @property
    def url(self):
        return f"amqp://guest:guest@127.0.0.1:{self.ports['amqp']}/%2f"

    def start(self):
        """Returns the seconds it took until the broker said `ready`."""
        begin = time.monotonic()
        command = [self.binary, "serve", "--data-dir", str(self.data_dir)]
        known = subprocess.run([self.binary, "serve", "--help"], capture_output=True, text=True, check=True).stdout
        for name in ["amqp", "stomp", "http", "native", "peer"]:
            if f"--{name}-listen" in known:
                command += [f"--{name}-listen", f"127.0.0.1:{self.ports.get(name, 0)}"]
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, start_new_session=True,
            env=os.environ | self.settings,
        )
        lines = queue.SimpleQueue()
        threading.Thread(target=pass_lines, args=(self.process.stdout, lines), daemon=True).start()
        while True:
            try:
                line = lines.get(timeout=begin + START_TIME_MAX - time.monotonic())
            except (queue.Empty, ValueError):
                self.kill()
                raise RuntimeError(f"the broker did not get ready within {START_TIME_MAX} s") from None
            if line is None:
                self.kill()
                raise RuntimeError("the broker ended before it was ready")
            if line == "ready":
                return time.monotonic() - begin
            if match := LISTENING.match(line):
                self.ports[match[1]] = int(match[2])

    def is_running(self):
        return self.process is not None and self.process.poll() is None

    def kill(self):
        """SIGKILL: what a crash or the out-of-memory killer does."""
        kill_group(self.process)
        self.process = None

    def stop(self):
        """SIGTERM, and SIGKILL for what is left when the time is over."""
        self.process.terminate()
        try:
            self.process.wait(STOP_TIME_MAX)
        except subprocess.TimeoutExpired:
            pass
        self.kill()


def free_port():
    """Below the range the system takes for outgoing connections: while the broker is down, a client that knocks
    at its port could otherwise be given that very port and keep the broker from it."""
    while True:
        port = random.randrange(15_000, 32_000)
        with socket.socket() as listener:
            try:
                listener.bind(("127.0.0.1", port))
                return port
            except OSError:
                pass


def pass_lines(stream, lines):
    """Reads to the end, also after `ready`: a full pipe would stop the broker."""
    for line in stream:
        lines.put(line.strip())
    lines.put(None)


def kill_group(process):
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


@contextlib.contextmanager
def own_broker():
    """A broker for a test that restarts it."""
    with tempfile.TemporaryDirectory(prefix="restarts-", dir=os.environ["INTEROP_WORK"]) as data_dir:
        broker = Broker(os.environ["PILLARBOX_BIN"], data_dir)
        broker.start()
        try:
            yield broker
        finally:
            if broker.is_running():
                broker.kill()


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with own_broker() as broker:
        print("port", broker.ports["amqp"], flush=True)
        for line in sys.stdin:
            if port := broker.ports.get(line.strip()):
                print(port, flush=True)
                continue
            {"kill": broker.kill, "stop": broker.stop, "start": broker.start}[line.strip()]()
            print("done", flush=True)


if __name__ == "__main__":
    main()
