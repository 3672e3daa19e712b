"""AMQP over TLS through pika and py-amqp: both versions, client certificates, who is refused, and a renewal."""

import contextlib
import os
import signal
import ssl
import subprocess
import sys
import time
from pathlib import Path

import amqp
import pika
from pika.exceptions import AMQPError

from broker import own_broker
from certificates import Certificates
from report import Report

CERTIFICATES = Certificates(Path(os.environ["INTEROP_WORK"]) / "certificates")
WORK = CERTIFICATES.directory


def context(certificate=None, trust="ca", version=None):
    made = ssl.create_default_context(cafile=WORK / f"{trust}.pem")
    if certificate:
        made.load_cert_chain(WORK / f"{certificate}.pem", WORK / f"{certificate}.key")
    if version:
        made.minimum_version = made.maximum_version = version
    return made


def connect(port, made, external=False):
    credentials = pika.credentials.ExternalCredentials() if external else pika.PlainCredentials("guest", "guest")
    return pika.BlockingConnection(pika.ConnectionParameters(
        "localhost", port, credentials=credentials, ssl_options=pika.SSLOptions(made, "localhost")))


def is_served(connection):
    with contextlib.closing(connection):
        channel = connection.channel()
        channel.confirm_delivery()
        queue = channel.queue_declare("", exclusive=True).method.queue
        bodies = [b"x" * 300_000] + [str(number).encode() for number in range(300)]
        for body in bodies:
            channel.basic_publish("", queue, body)
        for body in bodies:
            _, _, got = channel.basic_get(queue, auto_ack=True)
            assert got == body, f"{len(got)} bytes instead of {len(body)}"


def is_refused(connecting):
    try:
        connecting()
    except (AMQPError, ssl.SSLError, OSError):
        return
    raise AssertionError("it was let in")


def versions(port):
    for version in [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]:
        is_served(connect(port, context(version=version)))


def external(port):
    for version in [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]:
        is_served(connect(port, context("guest", version=version), external=True))


def strangers(port):
    is_refused(lambda: connect(port, context(), external=True))
    is_refused(lambda: connect(port, context("nobody"), external=True))
    is_refused(lambda: connect(port, context("alike")))
    is_refused(lambda: connect(port, context("expired")))
    is_refused(lambda: connect(port, context(trust="lookalike")))


def py_amqp(port):
    trust = {"ca_certs": WORK / "ca.pem", "server_hostname": "localhost"}
    own = {"certfile": WORK / "guest.pem", "keyfile": WORK / "guest.key"}
    for login in [{"ssl": trust}, {"ssl": trust | own, "login_method": "EXTERNAL"}]:
        with amqp.Connection(f"localhost:{port}", **login) as connection:
            channel = connection.channel()
            queue = channel.queue_declare("", exclusive=True).queue
            channel.confirm_select()
            channel.basic_publish_confirm(amqp.Message("hello"), routing_key=queue)
            assert channel.basic_get(queue, no_ack=True).body == "hello"


def serial(port):
    pem = ssl.get_server_certificate(("localhost", port))
    found = subprocess.run(["openssl", "x509", "-noout", "-serial"], input=pem, capture_output=True, text=True, check=True)
    return found.stdout


def renewal(port, process):
    before, old = serial(port), connect(port, context())
    CERTIFICATES.issue_server()
    process.send_signal(signal.SIGHUP)
    until = time.monotonic() + 10
    while serial(port) == before:
        assert time.monotonic() < until, "the old certificate is still shown"
        time.sleep(0.1)
    is_served(old)
    is_served(connect(port, context()))
    renewed = serial(port)
    (WORK / "server.key").write_text("nothing\n")
    process.send_signal(signal.SIGHUP)
    time.sleep(0.5)
    assert serial(port) == renewed, "a broken file changed the certificate"
    is_served(connect(port, context()))


def main():
    report = Report()
    binary = os.environ.get("PILLARBOX_BIN")
    known = binary and subprocess.run([binary, "serve", "--help"], capture_output=True, text=True).stdout
    if not known or "--tls-certificate" not in known:
        report.skip("TLS", "the broker is not started here, or by other settings")
        return report.finish()
    try:
        CERTIFICATES.make()
    except FileNotFoundError:
        report.skip("TLS", "there is no openssl")
        return report.finish()
    os.environ.update(CERTIFICATES.settings())
    with own_broker() as broker:
        port = broker.ports["amqp-tls"]
        report.run("TLS 1.2 and 1.3", versions, port)
        report.run("EXTERNAL", external, port)
        report.run("strangers", strangers, port)
        report.run("py-amqp", py_amqp, port)
        report.run("renewal", renewal, port, broker.process)
    report.finish()


if __name__ == "__main__":
    sys.exit(main())
