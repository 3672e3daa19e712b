// Prints the results of jasmine as `interop/run` reads them. The client's own output is kept out of them.
'use strict';

const print = process.stdout.write.bind(process.stdout);
const mode = process.env.CONN_MODE || 'websocket';

module.exports = class {
  jasmineStarted() {
    console.log = () => {};
  }
  specDone({status, fullName, failedExpectations}) {
    const name = `${fullName} (${mode})`;
    const reason = failedExpectations.map(({message}) => message).join('; ').replace(/\s+/g, ' ').slice(0, 300);
    if (status === 'passed') print(`ok ${name}\n`);
    else if (status === 'failed') print(`FAIL ${name}: ${reason}\n`);
    else print(`skip ${name}: ${status}\n`);
  }
};
