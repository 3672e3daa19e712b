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

// The page of this folder, as somebody's tab.
async function tab({browser, site}, name, topic, broker = WS_URL) {
  const query = new URLSearchParams({name, topic, broker});
  const page = await openTab(browser, `http://127.0.0.1:${site.address().port}/?${query}`);
  await page.getByText('Subscribed.').waitFor();
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
