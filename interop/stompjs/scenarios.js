// STOMP over a websocket as a browser speaks it, through @stomp/stompjs.
'use strict';

const assert = require('node:assert/strict');
const {randomUUID} = require('node:crypto');
const {setTimeout: pause} = require('node:timers/promises');
const {Client} = require('@stomp/stompjs');
const {WebSocket} = require('ws');
const {withOwnBroker} = require('broker.js');
const {run, skip, finish} = require('report.js');

const unique = (name) => `${name}-${randomUUID()}`;

// A connected client that keeps what it receives.
async function connect(options = {}) {
  const client = new Client({
    webSocketFactory: () => new WebSocket(process.env.WS_URL, ['v12.stomp', 'v11.stomp', 'v10.stomp']),
    connectHeaders: {login: 'guest', passcode: 'guest', host: '/'},
    reconnectDelay: 0,
    ...options,
  });
  await new Promise((resolve, reject) => {
    client.onConnect = resolve;
    client.onStompError = (frame) => reject(new Error(frame.headers.message));
    client.activate();
  });
  return client;
}

// Subscribes; `next` resolves to the messages in order.
function listen(client, destination, headers = {}) {
  const arrived = [];
  const waiting = [];
  const subscription = client.subscribe(destination, (message) => {
    const resolve = waiting.shift();
    if (resolve) resolve(message);
    else arrived.push(message);
  }, headers);
  const next = () => arrived.length ? Promise.resolve(arrived.shift()) : new Promise((resolve) => waiting.push(resolve));
  return {subscription, next, arrived};
}

function receipt(client, id) {
  return new Promise((resolve) => client.watchForReceipt(id, resolve));
}

const scenarios = {
  async 'work queue'(client) {
    const destination = `/queue/${unique('work')}`;
    for (let task = 0; task < 5; task += 1) client.publish({destination, body: `${task}`});
    const {next} = listen(client, destination, {ack: 'client', 'prefetch-count': '1'});
    for (let task = 0; task < 5; task += 1) {
      const message = await next();
      assert.equal(message.body, `${task}`);
      message.ack();
    }
  },

  async 'topics'(client) {
    const name = unique('topic');
    const ready = receipt(client, 'ready');
    const {next} = listen(client, `/topic/${name}.*.error`, {receipt: 'ready'});
    await ready;
    for (const key of ['app.error', 'app.info', 'db.error']) client.publish({destination: `/topic/${name}.${key}`, body: key});
    assert.deepEqual([(await next()).body, (await next()).body], ['app.error', 'db.error']);
  },

  async 'routing'(client) {
    const name = unique('level');
    const ready = ['error', 'warning'].map((level) => receipt(client, level));
    const listeners = ['error', 'warning'].map((level) =>
      listen(client, `/exchange/amq.direct/${name}.${level}`, {receipt: level}));
    await Promise.all(ready);
    for (const level of ['info', 'error', 'warning']) {
      client.publish({destination: `/exchange/amq.direct/${name}.${level}`, body: level});
    }
    assert.deepEqual([(await listeners[0].next()).body, (await listeners[1].next()).body], ['error', 'warning']);
    assert.deepEqual(listeners.map(({arrived}) => arrived.length), [0, 0]);
  },

  async 'publish/subscribe'(client) {
    const ready = [receipt(client, 'r0'), receipt(client, 'r1')];
    const listeners = [0, 1].map((n) => listen(client, '/exchange/amq.fanout', {receipt: `r${n}`}));
    await Promise.all(ready);
    client.publish({destination: '/exchange/amq.fanout', body: 'to all'});
    for (const {next} of listeners) assert.equal((await next()).body, 'to all');
  },

  async 'RPC'(client) {
    const destination = `/queue/${unique('requests')}`;
    const answered = new Promise((resolve) => { client.onUnhandledMessage = resolve; });
    listen(client, destination).next().then((request) => {
      client.publish({destination: request.headers['reply-to'], body: request.body + request.body});
    });
    client.publish({destination, body: 'ping', headers: {'reply-to': '/temp-queue/answers'}});
    assert.equal((await answered).body, 'pingping');
  },

  async 'publisher confirms'(client) {
    const destination = `/queue/${unique('receipts')}`;
    const receipts = [];
    for (let number = 0; number < 20; number += 1) {
      receipts.push(receipt(client, `send-${number}`));
      client.publish({destination, body: 'x', headers: {receipt: `send-${number}`, persistent: 'true'}});
    }
    await Promise.all(receipts);
  },

  async 'nack and requeue'(client) {
    const destination = `/queue/${unique('nack')}`;
    client.publish({destination, body: 'again'});
    const {next} = listen(client, destination, {ack: 'client-individual'});
    (await next()).nack();
    const message = await next();
    assert.deepEqual([message.body, message.headers.redelivered], ['again', 'true']);
    message.ack();
  },

  async 'transactions'(client) {
    const destination = `/queue/${unique('tx')}`;
    const {next, arrived} = listen(client, destination);
    const undone = client.begin();
    client.publish({destination, body: 'undone', headers: {transaction: undone.id}});
    undone.abort();
    const done = client.begin();
    client.publish({destination, body: 'done', headers: {transaction: done.id}});
    await pause(300);
    assert.equal(arrived.length, 0);
    done.commit();
    assert.equal((await next()).body, 'done');
  },

  async 'properties and bodies'(client) {
    const destination = `/queue/${unique('bodies')}`;
    const {next} = listen(client, destination);
    const headers = {plain: 'value', escaped: 'a:b\\x\nd', 'häuser': 'überall'};
    client.publish({destination, body: 'häuser', headers});
    const message = await next();
    assert.equal(message.body, 'häuser');
    for (const [name, value] of Object.entries(headers)) assert.equal(message.headers[name], value);
    const binaryBody = new Uint8Array(300_000).map((_, index) => index % 256);
    client.publish({destination, binaryBody, headers: {'content-type': 'application/octet-stream'}});
    assert.deepEqual((await next()).binaryBody, binaryBody);
  },

  async 'unsubscribe'(client) {
    const destination = `/queue/${unique('unsubscribe')}`;
    const {subscription, next, arrived} = listen(client, destination);
    client.publish({destination, body: 'first'});
    assert.equal((await next()).body, 'first');
    const gone = receipt(client, 'gone');
    subscription.unsubscribe({receipt: 'gone'});
    await gone;
    client.publish({destination, body: 'second'});
    await pause(300);
    assert.equal(arrived.length, 0);
  },

  async 'errors'(client) {
    const failure = new Promise((resolve) => { client.onStompError = resolve; });
    client.publish({destination: '/nowhere/at/all', body: 'x'});
    assert.equal((await failure).headers.message, 'Unknown destination');
    const wrong = {connectHeaders: {login: 'guest', passcode: 'wrong', host: '/'}};
    await assert.rejects(connect(wrong), /Bad CONNECT/);
  },
};

async function heartbeats() {
  const client = await connect({heartbeatIncoming: 1000, heartbeatOutgoing: 1000});
  await pause(4000);
  assert.ok(client.connected);
  await client.deactivate();
}

// The client comes back by itself and subscribes again in its callback; persistent messages, and what came for a durable
// subscription meanwhile, are there.
async function recovery(broker) {
  const port = await broker.portOf('http');
  const received = [];
  let connections = 0;
  const client = new Client({
    webSocketFactory: () => new WebSocket(`ws://127.0.0.1:${port}/ws`, ['v12.stomp']),
    connectHeaders: {login: 'guest', passcode: 'guest', host: '/'},
    reconnectDelay: 200,
  });
  client.onConnect = () => {
    connections += 1;
    const keep = (message) => {
      received.push(message.body);
      message.ack();
    };
    client.subscribe('/queue/lasting', keep, {id: 'queue', ack: 'client-individual'});
    client.subscribe('/topic/lasting', keep, {id: 'topic', ack: 'client-individual', durable: 'true'});
  };
  const until = async (what) => {
    const end = Date.now() + 30_000;
    while (!what()) {
      if (Date.now() > end) throw new Error(`received ${received}, connected ${connections} times`);
      await pause(50);
    }
  };
  client.activate();
  await until(() => connections === 1);
  const send = async (destination, body) => {
    const sent = receipt(client, body);
    client.publish({destination, body, headers: {persistent: 'true', receipt: body}});
    await sent;
  };
  await send('/queue/lasting', 'before');
  for (const [number, end] of [broker.kill, broker.stop].entries()) {
    await end();
    await broker.start();
    await until(() => client.connected && connections === number + 2);
    await send('/queue/lasting', `queue ${number}`);
    await send('/topic/lasting', `topic ${number}`);
    await until(() => received.includes(`queue ${number}`) && received.includes(`topic ${number}`));
  }
  assert.ok(received.includes('before'));
  await client.deactivate();
}

async function main() {
  for (const [name, scenario] of Object.entries(scenarios)) {
    await run(name, async () => {
      const client = await connect();
      await scenario(client);
      await client.deactivate();
    });
  }
  await run('heartbeats', heartbeats);
  if (process.env.PILLARBOX_BIN) await run('recovery', () => withOwnBroker(recovery));
  else skip('recovery', 'the broker was started by somebody else');
  finish();
}

main();
