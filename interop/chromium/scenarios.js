// The console in a real browser: it logs in, shows names as the text that they are, and runs nothing else.
"use strict";

const fs = require("node:fs");
const path = require("node:path");
const { chromium } = require("playwright-core");
const report = require("report");

const base = `http://localhost:${process.env.HTTP_PORT}`;
const work = process.env.INTEROP_WORK;
const hostile = `<img src=x onerror="document.title='broken'">`;

async function api(method, place, body) {
  const login = Buffer.from("guest:guest").toString("base64");
  const answer = await fetch(`${base}/api/${place}`, {
    method,
    headers: { authorization: `Basic ${login}`, "content-type": "application/json" },
    body: body && JSON.stringify(body),
  });
  if (!answer.ok) {
    throw new Error(`${method} ${place}: ${answer.status} ${await answer.text()}`);
  }
}

async function main() {
  await api("PUT", `queues/%2F/${encodeURIComponent(hostile)}`, {});
  const message = { properties: {}, routing_key: hostile, payload: "x", payload_encoding: "string" };
  await api("POST", "exchanges/%2F/amq.default/publish", message);
  const data = fs.mkdtempSync(path.join(work, "profile-"));
  const context = await chromium.launchPersistentContext(data, {
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    headless: true,
    args: [
      "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
      "--disable-component-update", "--disable-sync",
    ],
  });
  const page = await context.newPage();
  const problems = [];
  page.on("console", (line) => line.type() === "error" && problems.push(line.text()));
  page.on("pageerror", (error) => problems.push(error.message));
  try {
    await report.run("wrong password", async () => {
      await page.goto(`${base}/`);
      await page.fill("[name=user]", "guest");
      await page.fill("[name=password]", "wrong");
      await page.click("text=Log in");
      await page.waitForSelector("#refused:not(:empty)");
    });
    problems.length = 0;
    await report.run("overview", async () => {
      await page.fill("[name=password]", "guest");
      await page.click("text=Log in");
      await page.waitForSelector("#lengths polyline");
      await page.waitForFunction(() => document.querySelector("#totals dd").textContent === "1");
      await page.screenshot({ path: path.join(work, "overview.png") });
    });
    await report.run("names are text", async () => {
      await page.click("nav >> text=Queues");
      await page.waitForFunction((name) => [...document.querySelectorAll("td")].some((it) => it.textContent === name), hostile);
      if ((await page.title()) !== "Pillarbox" || (await page.locator("main img").count()) > 0) {
        throw new Error("a name was run");
      }
      await page.screenshot({ path: path.join(work, "queues.png") });
    });
    await report.run("connections", async () => {
      await page.click("nav >> text=Connections");
      await page.waitForSelector("#connections:not([hidden])");
      await page.screenshot({ path: path.join(work, "connections.png") });
    });
    await report.run("nothing refused by the policy", async () => {
      if (problems.length > 0) {
        throw new Error(problems.join("; "));
      }
    });
  } finally {
    await context.close();
    fs.rmSync(data, { recursive: true, force: true });
  }
  await api("DELETE", `queues/%2F/${encodeURIComponent(hostile)}`);
  report.finish();
}

main().catch((error) => {
  console.log(`FAIL chromium: ${error.message.split("\n")[0]}`);
  process.exit(1);
});
