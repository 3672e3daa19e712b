// The tutorials through @cloudamqp/amqp-client: its channels, and its sessions that recover by themselves.
'use strict';

const assert = require('node:assert/strict');
const {randomUUID} = require('node:crypto');
const {setTimeout: pause} = require('node:timers/promises');
const {AMQPClient, AMQPSession} = require('@cloudamqp/amqp-client');
const {withOwnBroker} = require('broker.js');
const {run, skip, finish} = require('report.js');

const URL = process.env.AMQP_URL;
const unique = (name) => `${name}-${randomUUID()}`;
const text = (message) => message.bodyString();

async function withConnection(test) {
  const client = new AMQPClient(URL, undefined, null);
  const connection = await client.connect();
  connection.onerror = () => {};
  try {
    await test(connection);
  } finally {
    if (!connection.closed) await connection.close();
  }
}

async function ownQueue(channel, args = {}) {
  return (await channel.queueDeclare('', {exclusive: true, durable: false, autoDelete: false}, args)).name;
}

// The next `count` messages of a queue, settled at once.
async function collect(channel, queue, count) {
  const messages = [];
  let done;
  const whole = new Promise((resolve) => { done = resolve; });
  const consumer = await channel.basicConsume(queue, {noAck: true}, (message) => {
    if (messages.push(message) === count) done();
  });
  await whole;
  await consumer.cancel();
  return messages;
}

async function expectClosed(connection, pattern, action) {
  const channel = await connection.channel();
  channel.onerror = () => {};
  await assert.rejects(action(channel), pattern);
}

const scenarios = {
  async 'work queue'(connection) {
    const queue = unique('work');
    const channel = await connection.channel();
    await channel.queueDeclare(queue, {durable: true});
    for (let task = 0; task < 10; task += 1) await channel.basicPublish('', queue, `${task}`, {deliveryMode: 2});
    const taken = {busy: [], worker: []};
    const busy = await connection.channel();
    await busy.prefetch(1);
    await busy.basicConsume(queue, {noAck: false}, (message) => { taken.busy.push(text(message)); });
    while (taken.busy.length < 1) await pause(20);
    const worker = await connection.channel();
    await worker.prefetch(1);
    await worker.basicConsume(queue, {noAck: false}, async (message) => {
      taken.worker.push(text(message));
      await message.ack();
    });
    while (taken.worker.length < 9) await pause(20);
    assert.deepEqual(taken, {busy: ['0'], worker: ['1', '2', '3', '4', '5', '6', '7', '8', '9']});
    await busy.close();
    await worker.close();
    assert.equal((await channel.queueDelete(queue)).messageCount, 1);
  },

  async 'publish/subscribe'(connection) {
    const channel = await connection.channel();
    const queues = [await ownQueue(channel), await ownQueue(channel)];
    const exchange = unique('logs');
    await channel.exchangeDeclare(exchange, 'fanout', {durable: false});
    for (const queue of queues) await channel.queueBind(queue, exchange, '');
    await channel.basicPublish(exchange, '', 'to all');
    for (const queue of queues) assert.equal(text((await collect(channel, queue, 1))[0]), 'to all');
    await channel.exchangeDelete(exchange);
  },

  async 'routing'(connection) {
    const channel = await connection.channel();
    const queue = await ownQueue(channel);
    for (const key of ['warning', 'error']) await channel.queueBind(queue, 'amq.direct', `${queue}.${key}`);
    for (const key of ['info', 'warning', 'error']) await channel.basicPublish('amq.direct', `${queue}.${key}`, key);
    assert.deepEqual((await collect(channel, queue, 2)).map(text), ['warning', 'error']);
  },

  async 'topics'(connection) {
    const channel = await connection.channel();
    const queue = await ownQueue(channel);
    const root = unique('kern');
    for (const pattern of [`${root}.*`, `#.${root}.critical`]) await channel.queueBind(queue, 'amq.topic', pattern);
    for (const key of [root, `${root}.info`, `${root}.critical`, `a.b.${root}.critical`, `${root}.disk.full`]) {
      await channel.basicPublish('amq.topic', key, key);
    }
    const expected = [`${root}.info`, `${root}.critical`, `a.b.${root}.critical`];
    assert.deepEqual((await collect(channel, queue, 3)).map(text), expected);
  },

  async 'RPC'() {
    const session = await AMQPSession.connect(URL, {logger: null});
    const queue = unique('square');
    const server = await session.rpcServer(queue, (message) => `${Number(text(message)) ** 2}`);
    assert.equal(text(await session.rpcCall(queue, '12', {timeout: 10_000})), '144');
    const client = await session.rpcClient();
    assert.equal(text(await client.call(queue, '5', {timeout: 10_000})), '25');
    await client.close();
    await server.close();
    await session.stop();
  },

  async 'publisher confirms'(connection) {
    const channel = await connection.channel();
    await channel.confirmSelect();
    const queue = await ownQueue(channel);
    const sent = Array.from({length: 1000}, (_, number) => channel.basicPublish('', queue, `${number}`, {deliveryMode: 2}));
    assert.deepEqual((await Promise.all(sent)).sort((a, b) => a - b), sent.map((_, number) => number + 1));
    assert.equal((await channel.queueDeclare(queue, {passive: true})).messageCount, 1000);
  },

  async 'mandatory return'(connection) {
    const channel = await connection.channel();
    const returned = new Promise((resolve) => { channel.onReturn = resolve; });
    await channel.basicPublish('', unique('nowhere'), 'lost', {}, true);
    const message = await returned;
    assert.deepEqual([message.replyCode, message.replyText, text(message)], [312, 'NO_ROUTE', 'lost']);
  },

  async 'dead letters and TTL'(connection) {
    const channel = await connection.channel();
    const dead = await ownQueue(channel);
    const source = await ownQueue(channel, {
      'x-dead-letter-exchange': '', 'x-dead-letter-routing-key': dead, 'x-message-ttl': 100,
    });
    await channel.basicPublish('', source, 'late');
    const [late] = await collect(channel, dead, 1);
    assert.equal(late.properties.headers['x-first-death-reason'], 'expired');
    await channel.basicPublish('', source, 'bad');
    await (await channel.basicGet(source, {noAck: false})).reject(false);
    assert.equal((await collect(channel, dead, 1))[0].properties.headers['x-first-death-reason'], 'rejected');
  },

  async 'get'(connection) {
    const channel = await connection.channel();
    const queue = await ownQueue(channel);
    for (const body of ['one', 'two']) await channel.basicPublish('', queue, body);
    const message = await channel.basicGet(queue, {noAck: false});
    assert.deepEqual([text(message), message.messageCount, message.redelivered], ['one', 1, false]);
    await message.nack(true);
    const again = await channel.basicGet(queue, {noAck: true});
    assert.deepEqual([text(again), again.redelivered], ['one', true]);
    assert.equal((await channel.queuePurge(queue)).messageCount, 1);
    assert.equal(await channel.basicGet(queue, {noAck: true}), null);
  },

  async 'properties and bodies'(connection) {
    const channel = await connection.channel();
    const queue = await ownQueue(channel);
    const headers = {
      text: 'häuser', whole: 1, large: 2 ** 40, fraction: 1.5, truth: true, nothing: null,
      list: [1, 'two', false], table: {inner: 'x'}, when: new Date(1_700_000_000_000),
    };
    const properties = {
      contentType: 'text/plain', contentEncoding: 'utf-8', deliveryMode: 2, priority: 3, correlationId: 'c',
      replyTo: 'r', expiration: '60000', messageId: 'm', timestamp: new Date(1_700_000_000_000), type: 't',
      userId: 'guest', appId: 'a', headers,
    };
    for (const size of [0, 1, 4096, 131_072, 1_000_000]) {
      const body = Uint8Array.from({length: size}, (_, at) => at % 251);
      await channel.basicPublish('', queue, body, properties);
      const [message] = await collect(channel, queue, 1);
      assert.deepEqual(message.properties, properties);
      assert.ok(Buffer.from(message.body || '').equals(Buffer.from(body)), `a body of ${size} bytes`);
    }
  },

  async 'transactions'(connection) {
    const channel = await connection.channel();
    const queue = await ownQueue(channel);
    await channel.txSelect();
    await channel.basicPublish('', queue, 'undone');
    await channel.txRollback();
    await channel.basicPublish('', queue, 'done');
    const counted = async () => (await channel.queueDeclare(queue, {passive: true})).messageCount;
    assert.equal(await counted(), 0);
    await channel.txCommit();
    assert.equal(await counted(), 1);
  },

  async 'bound and alternate exchanges'(connection) {
    const channel = await connection.channel();
    const [front, back] = [unique('front'), unique('back')];
    await channel.exchangeDeclare(back, 'fanout', {autoDelete: false, durable: false});
    await channel.exchangeDeclare(front, 'direct', {durable: false}, {'alternate-exchange': back});
    await channel.exchangeBind(back, front, 'a');
    const queue = await ownQueue(channel);
    await channel.queueBind(queue, back, '');
    await channel.basicPublish(front, 'a', 'bound');
    await channel.basicPublish(front, 'x', 'alternate');
    assert.deepEqual((await collect(channel, queue, 2)).map(text), ['bound', 'alternate']);
    for (const exchange of [front, back]) await channel.exchangeDelete(exchange);
  },

  async 'errors'(connection) {
    const name = unique('errors');
    await expectClosed(connection, /NOT_FOUND/, (channel) => channel.queueDeclare(name, {passive: true}));
    const keeper = await connection.channel();
    await keeper.queueDeclare(name, {exclusive: true, durable: false});
    await expectClosed(connection, /PRECONDITION_FAILED/, (channel) =>
      channel.queueDeclare(name, {exclusive: true, durable: false}, {'x-max-length': 1}));
    await expectClosed(connection, /ACCESS_REFUSED/, (channel) => channel.queueDeclare('amq.mine'));
    const wrong = new AMQPClient(URL.replace('guest:guest', 'guest:wrong'), undefined, null);
    await assert.rejects(wrong.connect(), /ACCESS_REFUSED|refused|closed/i);
  },

  async 'consumer cancelled by broker'(connection) {
    const channel = await connection.channel();
    const queue = await ownQueue(channel);
    const consumer = await channel.basicConsume(queue, {noAck: true}, () => {});
    await (await connection.channel()).queueDelete(queue);
    await assert.rejects(consumer.wait(10_000), /cancel/i);
  },
};

// A session connects again, and its subscriptions with it.
async function recovery() {
  await withOwnBroker(async (broker) => {
    const session = await AMQPSession.connect(broker.url, {reconnectInterval: 200, maxReconnectInterval: 500, logger: null});
    const queue = await session.queue('lasting', {durable: true});
    const received = new Set();
    await queue.subscribe({noAck: false, manualAck: true}, async (message) => {
      received.add(text(message));
      await message.ack();
    });
    const publish = async (body) => {
      for (;;) {
        try {
          return await queue.publish(body, {deliveryMode: 2});
        } catch {
          await pause(100);
        }
      }
    };
    for (const [number, end] of [broker.kill, broker.stop].entries()) {
      await publish(`before ${number}`);
      while (!received.has(`before ${number}`)) await pause(20);
      await end();
      await broker.start();
      await publish(`after ${number}`);
      while (!received.has(`after ${number}`)) await pause(20);
    }
    await session.stop();
  });
}

async function main() {
  for (const [name, scenario] of Object.entries(scenarios)) await run(name, () => withConnection(scenario));
  if (process.env.PILLARBOX_BIN) await run('recovery', recovery);
  else skip('recovery', 'the broker was started by somebody else');
  finish();
}

main();
