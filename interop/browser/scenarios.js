// A page that draws what it hears through @stomp/stompjs, in a browser without a screen; and the broker's own page.
'use strict';

const assert = require('node:assert/strict');
const {mkdirSync, mkdtempSync, readFileSync, rmSync} = require('node:fs');
const {createServer} = require('node:http');
const {join} = require('node:path');
const {randomUUID} = require('node:crypto');
const {chromium} = require('playwright-core');
const {withOwnBroker} = require('broker.js');
const {run, skip, finish} = require('report.js');

const {WS_URL, HTTP_PORT, AMQP_HOST, INTEROP_WORK} = process.env;
const ARTIFACTS = process.env.INTEROP_ARTIFACTS || join(INTEROP_WORK, 'artifacts');
const ARGUMENTS = [
  '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
  '--disable-component-update', '--disable-sync', '--disable-dev-shm-usage',
];

// What a site of its own would serve: the page, and the library as npm brings it.
async function serveSite() {
  const files = {
    '/': ['text/html', readFileSync(join(__dirname, 'page.html'))],
    '/stomp.js': ['text/javascript', readFileSync(join(INTEROP_WORK, 'node_modules/@stomp/stompjs/bundles/stomp.umd.js'))],
  };
  const server = createServer((request, response) => {
    const found = files[new URL(request.url, 'http://localhost').pathname];
    response.writeHead(found ? 200 : 404, {'content-type': found ? found[0] : 'text/plain'});
    response.end(found ? found[1] : '');
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  return server;
}

// A tab whose mistakes are mistakes of the test.
async function openTab(browser, url) {
  const page = await browser.newPage({viewport: {width: 960, height: 720}});
  page.setDefaultTimeout(20_000);
  page.mistakes = [];
  page.on('pageerror', (error) => page.mistakes.push(String(error)));
  page.on('console', (message) => {
    if (message.type() === 'error') page.mistakes.push(message.text());
  });
  await page.goto(url);
  return page;
}

async function keepScreenshot(page, name) {
  const path = join(ARTIFACTS, `${name}.png`);
  await page.screenshot({path, fullPage: true});
  console.log(`screenshot ${path}`);
}

const lines = (page) => page.locator('#messages li').allTextContents();
const hears = (page, count) => page.locator('#messages li').nth(count - 1).waitFor();

// In the page: subscribes, sends when all are subscribed, and resolves to the first `count` bodies, sorted.
function collect({subscribe, send, count}) {
  return new Promise((resolve) => {
    const received = [];
    let ready = 0;
    subscribe.forEach((destination, number) => {
      const receipt = `collect-${number}`;
      client.watchForReceipt(receipt, () => {
        ready += 1;
        if (ready === subscribe.length) for (const [to, body] of send) client.publish({destination: to, body});
      });
      client.subscribe(destination, ({body}) => {
        if (received.push(body) === count) resolve(received.sort());
      }, {receipt});
    });
  });
}

// The page of this folder, as somebody's tab.
async function tab({browser, site}, name, topic, broker = WS_URL) {
  const query = new URLSearchParams({name, topic, broker});
  const page = await openTab(browser, `http://127.0.0.1:${site.address().port}/?${query}`);
  await page.getByText('Subscribed.').waitFor();
  page.key = topic;
  return page;
}

async function say(page, text) {
  await page.locator('#text').fill(text);
  await page.locator('#send button').click();
}

const scenarios = {
  async 'publish/subscribe'(world) {
    const topic = randomUUID();
    const [ann, ben] = [await tab(world, 'ann', topic), await tab(world, 'ben', topic)];
    await say(ann, 'up 3 %');
    await hears(ben, 1);
    await say(ben, '<b>ümlaut</b> 漢字 🎉');
    const expected = ['ann: up 3 %', 'ben: <b>ümlaut</b> 漢字 🎉'];
    for (const page of [ann, ben]) {
      await hears(page, 2);
      assert.deepEqual(await lines(page), expected);
      assert.deepEqual(page.mistakes, []);
    }
    await keepScreenshot(ben, 'stompjs');
  },

  // The tutorials below use the page's client for what the page itself does not show.
  async 'work queue'(world) {
    const page = await tab(world, 'wim', randomUUID());
    const received = await page.evaluate((queue) => new Promise((resolve) => {
      const received = [];
      for (let task = 0; task < 5; task += 1) client.publish({destination: queue, body: `${task}`, headers: {persistent: 'true'}});
      for (const id of ['one', 'two']) {
        client.subscribe(queue, (message) => {
          received.push(message.body);
          message.ack();
          if (received.length === 5) resolve(received.sort());
        }, {id, ack: 'client-individual', 'prefetch-count': '1'});
      }
    }), `/queue/${randomUUID()}`);
    assert.deepEqual(received, ['0', '1', '2', '3', '4']);
    await page.close();
  },

  async 'routing'(world) {
    const page = await tab(world, 'rob', randomUUID());
    const received = await page.evaluate(collect, {
      subscribe: [`/exchange/amq.direct/error.${page.key}`, `/exchange/amq.direct/warning.${page.key}`],
      send: ['info', 'error', 'warning'].map((level) => [`/exchange/amq.direct/${level}.${page.key}`, level]),
      count: 2,
    });
    assert.deepEqual(received, ['error', 'warning']);
    await page.close();
  },

  async 'topics'(world) {
    const page = await tab(world, 'tim', randomUUID());
    const received = await page.evaluate(collect, {
      subscribe: [`/topic/${page.key}.*.error`],
      send: ['app.error', 'app.info', 'db.error'].map((key) => [`/topic/${page.key}.${key}`, key]),
      count: 2,
    });
    assert.deepEqual(received, ['app.error', 'db.error']);
    await page.close();
  },

  async 'RPC'(world) {
    const page = await tab(world, 'ray', randomUUID());
    const answer = await page.evaluate((queue) => new Promise((resolve) => {
      client.onUnhandledMessage = (message) => resolve([message.body, message.headers['correlation-id']]);
      client.subscribe(queue, ({headers, body}) => {
        const id = headers['correlation-id'];
        client.publish({destination: headers['reply-to'], body: body + body, headers: {'correlation-id': id}});
      });
      client.publish({destination: queue, body: 'ping', headers: {'reply-to': '/temp-queue/answers', 'correlation-id': '7'}});
    }), `/queue/${randomUUID()}`);
    assert.deepEqual(answer, ['pingping', '7']);
    await page.close();
  },

  async 'publisher confirms'(world) {
    const page = await tab(world, 'con', randomUUID());
    const receipts = await page.evaluate((queue) => Promise.all(Array.from({length: 20}, (_, number) => new Promise((resolve) => {
      client.watchForReceipt(`r${number}`, (frame) => resolve(frame.headers['receipt-id']));
      client.publish({destination: queue, body: 'x', headers: {persistent: 'true', receipt: `r${number}`}});
    }))), `/queue/${randomUUID()}`);
    assert.deepEqual(receipts, Array.from({length: 20}, (_, number) => `r${number}`));
    await page.close();
  },

  async 'a thousand messages in order'(world) {
    const topic = randomUUID();
    const page = await tab(world, 'eve', topic);
    await page.evaluate(() => {
      for (let number = 0; number < 1000; number += 1) {
        client.publish({destination, body: `${number}`, headers: {sender: 'eve'}});
      }
    });
    await hears(page, 1000);
    assert.deepEqual(await lines(page), Array.from({length: 1000}, (_, number) => `eve: ${number}`));
    await page.close();
  },

  async 'large message'(world) {
    const page = await tab(world, 'max', randomUUID());
    await page.evaluate(() => client.publish({destination, body: 'x'.repeat(1 << 20), headers: {sender: 'max'}}));
    await hears(page, 1);
    assert.equal((await lines(page))[0].length, 'max: '.length + (1 << 20));
    await page.close();
  },

  async 'other sites are kept out'({browser, site}) {
    // A page without an origin, as a sandboxed frame of any site has.
    const page = await openTab(browser, `http://127.0.0.1:${site.address().port}/`);
    const opened = await page.evaluate((url) => new Promise((resolve) => {
      addEventListener('message', (event) => resolve(event.data));
      const frame = document.createElement('iframe');
      frame.sandbox = 'allow-scripts';
      frame.srcdoc = `<script>const socket = new WebSocket(${JSON.stringify(url)}, 'v12.stomp');
        socket.onopen = () => parent.postMessage('open', '*');
        socket.onerror = () => parent.postMessage('refused', '*');</` + 'script>';
      document.body.append(frame);
    }), WS_URL);
    assert.equal(opened, 'refused');
    await page.close();
  },

  async 'example page'({browser}) {
    const url = `http://${AMQP_HOST}:${HTTP_PORT}/examples/stomp`;
    const [first, second] = [await openTab(browser, url), await openTab(browser, url)];
    for (const [page, name] of [[first, 'Ann'], [second, 'Ben']]) {
      await page.locator('#login button').click();
      await page.locator('#status', {hasText: /^Connected/}).waitFor();
      await page.locator('#name').fill(name);
    }
    await say(first, 'Is anybody there?');
    await hears(second, 1);
    await say(second, 'I am, with <i>markup</i> and a: colon.');
    for (const page of [first, second]) {
      await hears(page, 2);
      assert.deepEqual(await lines(page), ['AnnIs anybody there?', 'BenI am, with <i>markup</i> and a: colon.']);
      assert.deepEqual(page.mistakes, []);
    }
    await keepScreenshot(first, 'example');
    await second.locator('summary').click();
    await second.locator('#wire', {hasText: 'MESSAGE'}).waitFor();
    await keepScreenshot(second, 'example-wire');
    await second.locator('#password').fill('wrong');
    await second.locator('#login button').click();
    await second.locator('#status', {hasText: 'Bad CONNECT'}).waitFor();
    await keepScreenshot(second, 'example-refused');
  },
};

// A page stays open while its broker is restarted.
async function recovery(world) {
  await withOwnBroker(async (broker) => {
    const address = `ws://127.0.0.1:${await broker.portOf('http')}/ws`;
    const page = await tab(world, 'zoe', 'lasting', address);
    await say(page, 'before');
    await hears(page, 1);
    await broker.kill();
    await page.getByText('Not connected.').waitFor();
    await broker.start();
    await page.getByText('Subscribed.').waitFor();
    await say(page, 'after');
    await hears(page, 2);
    assert.deepEqual(await lines(page), ['zoe: before', 'zoe: after']);
    await page.close();
  });
}

async function main() {
  mkdirSync(ARTIFACTS, {recursive: true});
  const profile = mkdtempSync(join(INTEROP_WORK, 'profile-'));
  const site = await serveSite();
  const executablePath = process.env.CHROMIUM || '/usr/bin/chromium';
  const browser = await chromium.launchPersistentContext(profile, {executablePath, headless: true, args: ARGUMENTS});
  const world = {browser, site};
  try {
    for (const [name, scenario] of Object.entries(scenarios)) await run(name, () => scenario(world));
    if (process.env.PILLARBOX_BIN) await run('recovery', () => recovery(world));
    else skip('recovery', 'the broker was started by somebody else');
  } finally {
    await browser.close();
    site.close();
    rmSync(profile, {recursive: true, force: true});
  }
  finish();
}

main();
