"""Publishes until KILL_MESSAGES messages are confirmed, through every loss of the connection.

Ids ascend in the order of publishing and none is used twice: what a lost connection leaves unconfirmed stays
of unknown outcome, and further messages are published in its place.
Prints `confirmed N` as it goes; writes `published N`, then every confirmed id, to the file named on the command line.
"""

import sys
import time

import pika
from pika.exceptions import AMQPError

from message import MESSAGES, QUEUE, WINDOW, make_body, parameters


class Publisher:
    def __init__(self):
        self.published = 0
        self.confirmed = []
        self.refused = 0
        self.returned = 0
        self.connections = 0
        self.connection = None
        self.connect()

    def connect(self):
        # Delivery tag to id, of this connection.
        self.pending = {}
        self.connection = pika.SelectConnection(
            parameters(), self.on_open, self.on_closed, self.on_closed, custom_ioloop=self.connection and self.connection.ioloop
        )

    def on_open(self, connection):
        self.connections += 1
        connection.channel(on_open_callback=self.on_channel)

    def on_channel(self, channel):
        self.channel = channel
        self.tag = 0
        channel.add_on_return_callback(self.on_returned)
        channel.confirm_delivery(self.on_outcome, callback=lambda _: self.fill_window())

    def fill_window(self):
        while len(self.pending) < WINDOW and len(self.confirmed) + len(self.pending) < MESSAGES:
            self.published += 1
            self.tag += 1
            self.pending[self.tag] = self.published
            properties = pika.BasicProperties(delivery_mode=2, message_id=str(self.published))
            self.channel.basic_publish("", QUEUE, make_body(self.published), properties, mandatory=True)

    def on_outcome(self, frame):
        outcome = frame.method
        first = min(self.pending) if outcome.multiple else outcome.delivery_tag
        ids = [self.pending.pop(tag) for tag in range(first, outcome.delivery_tag + 1) if tag in self.pending]
        if isinstance(outcome, pika.spec.Basic.Ack):
            before = len(self.confirmed)
            self.confirmed += ids
            if before // 100 != len(self.confirmed) // 100:
                print("confirmed", len(self.confirmed), flush=True)
        else:
            self.refused += len(ids)
        if len(self.confirmed) == MESSAGES:
            self.connection.ioloop.stop()
        else:
            self.fill_window()

    def on_returned(self, *_):
        self.returned += 1

    def on_closed(self, connection, _reason):
        connection.ioloop.call_later(0.1, self.connect)


def main():
    publisher = Publisher()
    publisher.connection.ioloop.start()
    with open(sys.argv[1], "w") as journal:
        print("published", publisher.published, file=journal)
        print("connections", publisher.connections, file=journal)
        print("refused", publisher.refused, file=journal)
        print("returned", publisher.returned, file=journal)
        for message_id in publisher.confirmed:
            print(message_id, file=journal)


if __name__ == "__main__":
    main()
