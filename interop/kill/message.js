// What publisher and consumer agree on; the same as message.py.
'use strict';

const {createHash} = require('node:crypto');

const QUEUE = process.env.KILL_QUEUE;
const BODY_SIZE = Number(process.env.KILL_BODY_SIZE);

const digest = (text) => createHash('sha1').update(text).digest('hex');

function makeBody(id) {
  const text = `${QUEUE} ${id} `.padEnd(BODY_SIZE, '.');
  return Buffer.from(text + digest(text));
}

// The id in a body, 0 if the body is not as it was published.
function idOf(body) {
  const text = body.subarray(0, -40);
  if (digest(text) !== body.subarray(-40).toString()) return 0;
  const [queue, id] = text.toString().split(' ');
  return queue === QUEUE ? Number(id) : 0;
}

module.exports = {
  QUEUE,
  makeBody,
  idOf,
  MESSAGES: Number(process.env.KILL_MESSAGES),
  WINDOW: Number(process.env.KILL_WINDOW),
  URL: process.env.AMQP_URL,
};
