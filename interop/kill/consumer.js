// Consumes and settles one by one, through every loss of the connection, until told to drain and nothing more comes.
// The same rules and the same journal as consumer.py.
'use strict';

const {createWriteStream} = require('node:fs');
const {setTimeout: pause} = require('node:timers/promises');
const amqp = require('amqplib');
const {QUEUE, URL, idOf} = require('./message.js');

const PREFETCH = 200;
const QUIET_MILLISECONDS = 2000;

const journal = createWriteStream(process.argv[2]);
let connections = 0;
let drain = false;
let lastDelivery = Date.now();

// Resolves to whether the queue was drained; false after a loss.
async function consumeOnce() {
  const connection = await amqp.connect(URL);
  connections += 1;
  let isLost = false;
  connection.on('error', () => {});
  connection.once('close', () => { isLost = true; });
  const channel = await connection.createChannel();
  channel.on('error', () => {});
  await channel.prefetch(PREFETCH);
  await channel.consume(QUEUE, ({content, fields, properties}) => {
    let id = idOf(content);
    if (properties.messageId !== String(id) || properties.deliveryMode !== 2) id = 0;
    journal.write(`${connections} ${id} ${Number(fields.redelivered)}\n`);
    if (!isLost) channel.ack({fields});
    lastDelivery = Date.now();
  });
  while (!isLost) {
    await pause(200);
    if (!isLost && drain && Date.now() > lastDelivery + QUIET_MILLISECONDS) {
      await connection.close();
      return true;
    }
  }
  return false;
}

async function main() {
  process.stdin.resume().on('end', () => { drain = true; });
  while (!(await consumeOnce().catch(() => false))) await pause(100);
  journal.end();
}

main();
