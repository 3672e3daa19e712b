"""What publisher and consumer agree on."""

import hashlib
import os

import pika

MESSAGES = int(os.environ["KILL_MESSAGES"])
WINDOW = int(os.environ["KILL_WINDOW"])
BODY_SIZE = int(os.environ["KILL_BODY_SIZE"])
QUEUE = os.environ["KILL_QUEUE"]


def parameters():
    parameters = pika.URLParameters(os.environ["AMQP_URL"])
    parameters.socket_timeout = 5
    return parameters


def make_body(message_id):
    """The queue, the id and filler, closed by a digest of them."""
    text = f"{QUEUE} {message_id} ".ljust(BODY_SIZE, ".").encode()
    return text + hashlib.sha1(text).hexdigest().encode()


def id_of(body):
    """The id in a body, 0 if the body is not as it was published."""
    text, digest = body[:-40], body[-40:]
    if hashlib.sha1(text).hexdigest().encode() != digest:
        return 0
    queue, message_id, _ = text.decode().split(" ", 2)
    return int(message_id) if queue == QUEUE else 0
