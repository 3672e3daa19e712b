"""Consumes and settles one by one, through every loss of the connection, until told to drain and nothing more comes.

Writes for each delivery `CONNECTION ID REDELIVERED` to the file named on the command line, id 0 for a damaged message.
"""

import select
import sys
import time

import pika

from message import QUEUE, id_of, parameters

PREFETCH = 200
QUIET_SECONDS = 2


class Consumer:
    def __init__(self, journal):
        self.journal = journal
        self.connections = 0
        self.connection = None
        self.drain = False
        self.last_delivery = time.monotonic()
        self.connect()

    def connect(self):
        self.connection = pika.SelectConnection(
            parameters(), self.on_open, self.on_closed, self.on_closed, custom_ioloop=self.connection and self.connection.ioloop
        )

    def on_open(self, connection):
        self.connections += 1
        connection.channel(on_open_callback=self.on_channel)

    def on_channel(self, channel):
        channel.basic_qos(prefetch_count=PREFETCH)
        channel.basic_consume(QUEUE, self.on_delivery)

    def on_delivery(self, channel, method, properties, body):
        message_id = id_of(body)
        if properties.message_id != str(message_id) or properties.delivery_mode != 2:
            message_id = 0
        print(self.connections, message_id, int(method.redelivered), file=self.journal)
        channel.basic_ack(method.delivery_tag)
        self.last_delivery = time.monotonic()

    def on_closed(self, connection, _reason):
        if self.drain and isinstance(_reason, pika.exceptions.ConnectionClosedByClient):
            connection.ioloop.stop()
        else:
            connection.ioloop.call_later(0.1, self.connect)

    def watch(self):
        """Ends once the driver closed standard input and the queue has been quiet."""
        if select.select([sys.stdin], [], [], 0)[0] and not sys.stdin.readline():
            self.drain = True
        if self.drain and self.connection.is_open and time.monotonic() > self.last_delivery + QUIET_SECONDS:
            self.connection.close()
        else:
            self.connection.ioloop.call_later(0.2, self.watch)


def main():
    with open(sys.argv[1], "w") as journal:
        consumer = Consumer(journal)
        consumer.watch()
        consumer.connection.ioloop.start()


if __name__ == "__main__":
    main()
