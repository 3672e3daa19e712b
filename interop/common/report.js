// Prints results as `interop/run` reads them.
'use strict';

const counts = {passed: 0, failed: 0};

// The scenario passes if it does not throw within `seconds`.
async function run(name, scenario, seconds = 60) {
  let timer;
  const overdue = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`not done within ${seconds} s`)), seconds * 1000);
  });
  try {
    await Promise.race([scenario(), overdue]);
    counts.passed += 1;
    console.log(`ok ${name}`);
  } catch (error) {
    counts.failed += 1;
    console.log(error.stack);
    console.log(`FAIL ${name}: ${String(error.message).replace(/\s+/g, ' ')}`);
  } finally {
    clearTimeout(timer);
  }
}

function skip(name, reason) {
  console.log(`skip ${name}: ${reason}`);
}

function finish() {
  console.log(`${counts.passed} passed, ${counts.failed} failed`);
  process.exit(counts.failed ? 1 : 0);
}

module.exports = {run, skip, finish};
