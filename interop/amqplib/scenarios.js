// The tutorials and everyday features, through amqplib's promises; recovery through amqp-connection-manager.
'use strict';

const assert = require('node:assert/strict');
const {randomUUID} = require('node:crypto');
const {once} = require('node:events');
const {setTimeout: pause} = require('node:timers/promises');
const amqp = require('amqplib');
const manager = require('amqp-connection-manager');
const {withOwnBroker} = require('broker.js');
const {run, skip, finish} = require('report.js');

const URL = process.env.AMQP_URL;
const unique = (name) => `${name}-${randomUUID()}`;
const text = (message) => message.content.toString();

async function withConnection(test) {
  const connection = await amqp.connect(URL);
  connection.on('error', () => {});
  try {
    await test(connection);
  } finally {
    await connection.close().catch(() => {});
  }
}

// The next `count` messages of a queue, settled at once.
function collect(channel, queue, count) {
  return new Promise((resolve, reject) => {
    const messages = [];
    const consumerTag = unique('collect');
    channel.consume(queue, (message) => {
      if (messages.push(message) === count) channel.cancel(consumerTag).then(() => resolve(messages), reject);
    }, {noAck: true, consumerTag}).catch(reject);
  });
}

async function expectClosed(connection, code, action) {
  const channel = await connection.createChannel();
  channel.on('error', () => {});
  await assert.rejects(action(channel), (error) => error.code === code);
}

async function ownQueue(channel, options = {}) {
  return (await channel.assertQueue('', {exclusive: true, ...options})).queue;
}

const scenarios = {
  async 'work queue'(connection) {
    const queue = unique('work');
    const publisher = await connection.createChannel();
    await publisher.assertQueue(queue, {durable: true});
    for (let task = 0; task < 10; task += 1) publisher.sendToQueue(queue, Buffer.from(`${task}`), {persistent: true});
    const busy = await connection.createChannel();
    await busy.prefetch(1);
    const held = [];
    await busy.consume(queue, (message) => held.push(text(message)));
    while (held.length === 0) await pause(20);
    const worker = await connection.createChannel();
    await worker.prefetch(1);
    const done = [];
    await worker.consume(queue, (message) => {
      done.push(text(message));
      worker.ack(message);
    });
    while (done.length < 9) await pause(20);
    assert.deepEqual([held, done], [['0'], ['1', '2', '3', '4', '5', '6', '7', '8', '9']]);
    await busy.close();
    await worker.close();
    await publisher.deleteQueue(queue);
  },

  async 'publish/subscribe'(connection) {
    const channel = await connection.createChannel();
    const {exchange} = await channel.assertExchange(unique('logs'), 'fanout', {durable: false});
    const queues = [await ownQueue(channel), await ownQueue(channel)];
    for (const queue of queues) await channel.bindQueue(queue, exchange, '');
    channel.publish(exchange, '', Buffer.from('to all'));
    for (const queue of queues) assert.equal(text((await collect(channel, queue, 1))[0]), 'to all');
    await channel.deleteExchange(exchange);
  },

  async 'routing'(connection) {
    const channel = await connection.createChannel();
    const {exchange} = await channel.assertExchange(unique('direct_logs'), 'direct', {durable: false});
    const queue = await ownQueue(channel);
    for (const severity of ['warning', 'error']) await channel.bindQueue(queue, exchange, severity);
    for (const severity of ['info', 'warning', 'error']) channel.publish(exchange, severity, Buffer.from(severity));
    assert.deepEqual((await collect(channel, queue, 2)).map(text), ['warning', 'error']);
    await channel.unbindQueue(queue, exchange, 'warning');
    for (const severity of ['warning', 'error']) channel.publish(exchange, severity, Buffer.from(severity));
    assert.deepEqual((await collect(channel, queue, 1)).map(text), ['error']);
    await channel.deleteExchange(exchange);
  },

  async 'topics'(connection) {
    const channel = await connection.createChannel();
    const {exchange} = await channel.assertExchange(unique('topic_logs'), 'topic', {durable: false});
    const keys = ['kern.critical', 'kern.info', 'cron.critical', 'kern', 'kern.disk.critical'];
    const matching = {
      '#': keys,
      'kern.*': ['kern.critical', 'kern.info'],
      '*.critical': ['kern.critical', 'cron.critical'],
      'kern.#': ['kern.critical', 'kern.info', 'kern', 'kern.disk.critical'],
    };
    const queues = {};
    for (const pattern of Object.keys(matching)) {
      queues[pattern] = await ownQueue(channel);
      await channel.bindQueue(queues[pattern], exchange, pattern);
    }
    for (const key of keys) channel.publish(exchange, key, Buffer.from(key));
    for (const [pattern, expected] of Object.entries(matching)) {
      assert.deepEqual((await collect(channel, queues[pattern], expected.length)).map(text), expected);
    }
    await channel.deleteExchange(exchange);
  },

  async 'RPC'(connection) {
    const server = await connection.createChannel();
    const requests = await ownQueue(server);
    await server.consume(requests, (message) => {
      const {replyTo, correlationId} = message.properties;
      server.sendToQueue(replyTo, Buffer.from(`${Number(text(message)) ** 2}`), {correlationId});
      server.ack(message);
    });
    const client = await connection.createChannel();
    for (const replies of [await ownQueue(client), 'amq.rabbitmq.reply-to']) {
      const reply = new Promise((resolve) => client.consume(replies, resolve, {noAck: true}));
      client.sendToQueue(requests, Buffer.from('12'), {replyTo: replies, correlationId: 'call'});
      const message = await reply;
      assert.deepEqual([message.properties.correlationId, text(message)], ['call', '144']);
    }
  },

  async 'publisher confirms'(connection) {
    const channel = await connection.createConfirmChannel();
    const queue = await ownQueue(channel);
    let confirmed = 0;
    for (let number = 0; number < 1000; number += 1) {
      channel.sendToQueue(queue, Buffer.from(`${number}`), {persistent: true}, (error) => {
        assert.equal(error, null);
        confirmed += 1;
      });
    }
    await channel.waitForConfirms();
    assert.equal(confirmed, 1000);
    assert.equal((await channel.checkQueue(queue)).messageCount, 1000);
  },

  async 'mandatory return'(connection) {
    const channel = await connection.createConfirmChannel();
    const returned = once(channel, 'return');
    channel.publish('', unique('nowhere'), Buffer.from('lost'), {mandatory: true});
    const [message] = await returned;
    assert.deepEqual([message.fields.replyCode, message.fields.replyText, text(message)], [312, 'NO_ROUTE', 'lost']);
    await channel.waitForConfirms();
  },

  async 'dead letters and TTL'(connection) {
    const channel = await connection.createChannel();
    const {exchange} = await channel.assertExchange(unique('dlx'), 'fanout', {durable: false});
    const dead = await ownQueue(channel);
    await channel.bindQueue(dead, exchange, '');
    const source = await ownQueue(channel, {deadLetterExchange: exchange, messageTtl: 100});
    channel.sendToQueue(source, Buffer.from('late'));
    const [late] = await collect(channel, dead, 1);
    const [death] = late.properties.headers['x-death'];
    assert.deepEqual([death.queue, death.reason, death.count], [source, 'expired', 1]);
    channel.sendToQueue(source, Buffer.from('bad'));
    channel.reject(await channel.get(source), false);
    const [bad] = await collect(channel, dead, 1);
    assert.equal(bad.properties.headers['x-first-death-reason'], 'rejected');
    await channel.deleteExchange(exchange);
  },

  async 'priority'(connection) {
    const channel = await connection.createChannel();
    const queue = await ownQueue(channel, {maxPriority: 5});
    for (const priority of [0, 5, 3, 9]) channel.sendToQueue(queue, Buffer.from(`${priority}`), {priority});
    // Everything is in the queue before the first is taken.
    await channel.checkQueue(queue);
    assert.deepEqual((await collect(channel, queue, 4)).map(text), ['5', '9', '3', '0']);
  },

  async 'headers exchange'(connection) {
    const channel = await connection.createChannel();
    const {exchange} = await channel.assertExchange(unique('headers'), 'headers', {durable: false});
    const [all, any] = [await ownQueue(channel), await ownQueue(channel)];
    const wanted = {format: 'pdf', pages: 2};
    await channel.bindQueue(all, exchange, '', {'x-match': 'all', ...wanted});
    await channel.bindQueue(any, exchange, '', {'x-match': 'any', ...wanted});
    channel.publish(exchange, '', Buffer.from('both'), {headers: {...wanted, other: true}});
    channel.publish(exchange, '', Buffer.from('one'), {headers: {format: 'pdf', pages: 3}});
    channel.publish(exchange, '', Buffer.from('none'), {headers: {format: 'zip'}});
    assert.deepEqual((await collect(channel, any, 2)).map(text), ['both', 'one']);
    assert.deepEqual((await collect(channel, all, 1)).map(text), ['both']);
    assert.equal(await channel.get(all), false);
    await channel.deleteExchange(exchange);
  },

  async 'get'(connection) {
    const channel = await connection.createChannel();
    const queue = await ownQueue(channel);
    assert.equal(await channel.get(queue), false);
    for (const body of ['0', '1', '2']) channel.sendToQueue(queue, Buffer.from(body));
    const message = await channel.get(queue, {noAck: true});
    assert.deepEqual([text(message), message.fields.messageCount, message.fields.redelivered], ['0', 2, false]);
    assert.equal((await channel.purgeQueue(queue)).messageCount, 2);
    assert.equal((await channel.deleteQueue(queue)).messageCount, 0);
  },

  async 'nack and requeue'(connection) {
    const channel = await connection.createChannel();
    const queue = await ownQueue(channel);
    for (const body of ['0', '1', '2']) channel.sendToQueue(queue, Buffer.from(body));
    await channel.get(queue);
    await channel.get(queue);
    const last = await channel.get(queue);
    channel.nack(last, true, true);
    const again = [await channel.get(queue), await channel.get(queue), await channel.get(queue)];
    assert.deepEqual(again.map((m) => [text(m), m.fields.redelivered]), [['0', true], ['1', true], ['2', true]]);
    channel.nack(again[0], false, false);
    channel.ack(again[1]);
    channel.reject(again[2], true);
    assert.equal(text(await channel.get(queue, {noAck: true})), '2');
    assert.equal(await channel.get(queue), false);
  },

  async 'unsettled messages return'(connection) {
    const queue = unique('held');
    const keeper = await connection.createChannel();
    await keeper.assertQueue(queue);
    for (const body of ['0', '1', '2']) keeper.sendToQueue(queue, Buffer.from(body));
    const other = await connection.createChannel();
    await keeper.checkQueue(queue);
    await other.get(queue);
    await other.get(queue);
    await other.close();
    const messages = await collect(keeper, queue, 3);
    assert.deepEqual(messages.map((m) => [text(m), m.fields.redelivered]), [['0', true], ['1', true], ['2', false]]);
    await keeper.deleteQueue(queue);
  },

  async 'exclusive and auto-delete'(connection) {
    const channel = await connection.createChannel();
    const queue = await ownQueue(channel);
    await withConnection(async (stranger) => {
      await expectClosed(stranger, 405, (other) => other.checkQueue(queue));
    });
    const shared = unique('auto');
    await channel.assertQueue(shared, {autoDelete: true});
    const {consumerTag} = await channel.consume(shared, () => {});
    await channel.cancel(consumerTag);
    await expectClosed(connection, 404, (other) => other.checkQueue(shared));
  },

  async 'properties and bodies'(connection) {
    const channel = await connection.createChannel();
    const queue = await ownQueue(channel);
    const headers = {
      text: 'häuser', int: 7, big: 2 ** 40, negative: -5, float: 1.5, yes: true, none: null,
      list: [1, 'two', {three: 3}], table: {inner: {deep: 'x'}}, bytes: Buffer.from([0, 255]),
      when: {'!': 'timestamp', value: 1700000000}, decimal: {'!': 'decimal', value: {digits: 12345, places: 2}},
      byte: {'!': 'byte', value: -1}, short: {'!': 'short', value: -300},
    };
    const properties = {
      contentType: 'text/plain', contentEncoding: 'utf-8', deliveryMode: 1, priority: 3, correlationId: 'c',
      replyTo: 'r', expiration: '60000', messageId: 'm', timestamp: 1700000000, type: 't', userId: 'guest', appId: 'a',
    };
    for (const body of [Buffer.alloc(0), Buffer.from('x'), Buffer.alloc(1024 * 1024 + 3, 'pillarbox')]) {
      channel.sendToQueue(queue, body, {headers, ...properties});
      const [message] = await collect(channel, queue, 1);
      assert.ok(message.content.equals(body), `a body of ${body.length} bytes came back with ${message.content.length}`);
      for (const [name, value] of Object.entries(properties)) assert.equal(message.properties[name], value, name);
      const found = message.properties.headers;
      assert.deepEqual(found, {...headers, byte: -1, short: -300});
    }
  },

  async 'errors'(connection) {
    const name = unique('errors');
    await expectClosed(connection, 404, (channel) => channel.checkQueue(name));
    await expectClosed(connection, 404, (channel) => channel.checkExchange(name));
    const keeper = await connection.createChannel();
    await keeper.assertQueue(name, {exclusive: true});
    await expectClosed(connection, 406, (channel) => channel.assertQueue(name, {exclusive: true, maxLength: 1}));
    await expectClosed(connection, 403, (channel) => channel.assertQueue('amq.mine'));
    const channel = await connection.createChannel();
    const failure = once(channel, 'error');
    channel.ack({fields: {deliveryTag: 99}});
    assert.equal((await failure)[0].code, 406);
    await keeper.checkQueue(name);
  },

  async 'length limits'(connection) {
    const channel = await connection.createConfirmChannel();
    const oldestGoes = await ownQueue(channel, {maxLength: 2});
    for (const body of ['0', '1', '2']) channel.sendToQueue(oldestGoes, Buffer.from(body));
    await channel.waitForConfirms();
    assert.deepEqual((await collect(channel, oldestGoes, 2)).map(text), ['1', '2']);
    const refusing = await ownQueue(channel, {maxLength: 1, overflow: 'reject-publish'});
    channel.sendToQueue(refusing, Buffer.from('in'));
    await channel.waitForConfirms();
    channel.sendToQueue(refusing, Buffer.from('over'));
    await assert.rejects(channel.waitForConfirms(), /nack/);
  },

  async 'bound and alternate exchanges'(connection) {
    const channel = await connection.createChannel();
    const {exchange: rest} = await channel.assertExchange(unique('rest'), 'fanout');
    const {exchange: back} = await channel.assertExchange(unique('back'), 'topic');
    const {exchange: front} = await channel.assertExchange(unique('front'), 'direct', {alternateExchange: rest});
    await channel.bindExchange(back, front, 'a.b');
    const [queue, others] = [await ownQueue(channel), await ownQueue(channel)];
    await channel.bindQueue(queue, back, 'a.*');
    await channel.bindQueue(others, rest, '');
    channel.publish(front, 'a.b', Buffer.from('matched'));
    channel.publish(front, 'x', Buffer.from('unmatched'));
    assert.equal(text((await collect(channel, queue, 1))[0]), 'matched');
    assert.equal(text((await collect(channel, others, 1))[0]), 'unmatched');
    for (const exchange of [front, back, rest]) await channel.deleteExchange(exchange);
  },

  async 'consumer cancelled by broker'(connection) {
    const queue = unique('gone');
    const channel = await connection.createChannel();
    await channel.assertQueue(queue);
    const cancelled = new Promise((resolve) => channel.consume(queue, resolve));
    await (await connection.createChannel()).deleteQueue(queue);
    assert.equal(await cancelled, null);
  },
};

// amqp-connection-manager sets queues and consumers up again on every new connection.
async function recovery() {
  await withOwnBroker(async (broker) => {
    const connection = manager.connect([broker.url], {reconnectTimeInSeconds: 0.2});
    connection.on('connectFailed', () => {});
    const received = [];
    const channel = connection.createChannel({
      setup: async (raw) => {
        await raw.assertQueue('lasting', {durable: true});
        await raw.consume('lasting', (message) => {
          received.push(text(message));
          raw.ack(message);
        });
      },
    });
    await channel.waitForConnect();
    for (const [number, end] of [broker.kill, broker.stop].entries()) {
      await channel.sendToQueue('lasting', Buffer.from(`before ${number}`), {persistent: true});
      const lost = once(connection, 'disconnect');
      await end();
      await lost;
      // Kept by the manager until it is connected again.
      const sent = channel.sendToQueue('lasting', Buffer.from(`after ${number}`), {persistent: true});
      await broker.start();
      await sent;
      while (!received.includes(`after ${number}`)) await pause(50);
    }
    assert.deepEqual([...new Set(received)], ['before 0', 'after 0', 'before 1', 'after 1']);
    await connection.close();
  });
}

async function main() {
  for (const [name, scenario] of Object.entries(scenarios)) {
    await run(name, () => withConnection(scenario));
  }
  if (process.env.PILLARBOX_BIN) await run('recovery', recovery);
  else skip('recovery', 'the broker was started by somebody else');
  finish();
}

main();
