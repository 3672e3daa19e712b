// Publishes until KILL_MESSAGES messages are confirmed, through every loss of the connection.
// The same rules and the same journal as publisher.py.
'use strict';

const {writeFileSync} = require('node:fs');
const {setTimeout: pause} = require('node:timers/promises');
const amqp = require('amqplib');
const {MESSAGES, QUEUE, URL, WINDOW, makeBody} = require('./message.js');

let published = 0;
let connections = 0;
let refused = 0;
let returned = 0;
const confirmed = [];

// Resolves when the connection is lost or everything is confirmed.
async function publishOnce() {
  const connection = await amqp.connect(URL);
  connections += 1;
  connection.on('error', () => {});
  const lost = new Promise((resolve) => connection.once('close', resolve));
  const channel = await connection.createConfirmChannel();
  channel.on('error', () => {});
  channel.on('return', () => { returned += 1; });

  let isLost = false;
  let pending = 0;
  await new Promise((resolve) => {
    lost.then(() => { isLost = true; resolve(); });
    const fillWindow = () => {
      while (!isLost && pending < WINDOW && confirmed.length + pending < MESSAGES) {
        const id = ++published;
        pending += 1;
        const options = {persistent: true, messageId: String(id), mandatory: true};
        channel.publish('', QUEUE, makeBody(id), options, (error) => {
          // After a loss every callback is called with an error: unknown, not refused.
          if (isLost || (error && error.message !== 'message nacked')) return;
          pending -= 1;
          if (error) refused += 1;
          else if (confirmed.push(id) % 100 === 0) console.log('confirmed', confirmed.length);
          if (confirmed.length === MESSAGES) resolve();
          else fillWindow();
        });
      }
    };
    fillWindow();
  });
  if (!isLost) await connection.close();
}

async function main() {
  while (confirmed.length < MESSAGES) {
    await publishOnce().catch(() => {});
    await pause(100);
  }
  const counts = [`published ${published}`, `connections ${connections}`, `refused ${refused}`, `returned ${returned}`];
  writeFileSync(process.argv[2], [...counts, ...confirmed].join('\n') + '\n');
}

main();
