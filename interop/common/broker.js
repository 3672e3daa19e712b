// A broker for a test that restarts it: broker.py, driven over its standard input.
'use strict';

const {spawn} = require('node:child_process');
const {createInterface} = require('node:readline');
const {join} = require('node:path');

async function withOwnBroker(test) {
  const child = spawn('python3', [join(__dirname, 'broker.py')], {stdio: ['pipe', 'pipe', 'inherit']});
  const lines = createInterface({input: child.stdout})[Symbol.asyncIterator]();
  const answer = async () => {
    const {value, done} = await lines.next();
    if (done) throw new Error('the broker did not start');
    return value;
  };
  const order = (word) => {
    child.stdin.write(word + '\n');
    return answer();
  };
  try {
    const port = (await answer()).split(' ')[1];
    await test({
      port,
      url: `amqp://guest:guest@127.0.0.1:${port}/%2f`,
      kill: () => order('kill'),
      stop: () => order('stop'),
      start: () => order('start'),
      portOf: (listener) => order(listener),
    });
  } finally {
    child.stdin.end();
    await new Promise((resolve) => child.once('exit', resolve));
  }
}

module.exports = {withOwnBroker};
