// Names come from anybody who may declare something: they are only ever set as text.
"use strict";

const REFRESH_MS = 2000;
const get = (id) => document.getElementById(id);
let login = null;
let page = 1;
let pages = 1;

async function ask(path) {
  const answer = await fetch(path, { headers: { authorization: login }, credentials: "omit" });
  if (answer.status === 401) {
    leave("Wrong user or password, or no tag that lets this user in");
  }
  if (!answer.ok) {
    throw new Error(`${path}: ${answer.status}`);
  }
  return answer.json();
}

function leave(reason) {
  login = null;
  get("refused").textContent = reason;
  show();
}

function show() {
  const known = login !== null;
  document.querySelector("main").hidden = !known;
  document.querySelector("nav").hidden = !known;
  get("login").hidden = known;
  const here = location.hash.slice(1) || "overview";
  for (const section of document.querySelectorAll("section")) {
    section.hidden = section.id !== here;
  }
  for (const link of document.querySelectorAll("nav a")) {
    link.classList.toggle("here", link.hash === `#${here}`);
  }
}

const number = (value) => Math.round(value ?? 0).toLocaleString("en");
const rate = (value) => (value ?? 0).toFixed(1);

function rows(body, list) {
  body.replaceChildren(
    ...list.map((cells) => {
      const row = document.createElement("tr");
      for (const cell of cells) {
        row.insertCell().textContent = cell;
      }
      return row;
    }),
  );
}

// Points come newest first.
function draw(svg, lines) {
  const most = Math.max(1, ...lines.flat());
  svg.replaceChildren(
    ...lines.map((points, at) => {
      const line = document.createElementNS("http://www.w3.org/2000/svg", "polyline");
      const places = points.map((value, index) => `${600 - index * 5},${118 - (value / most) * 114}`);
      line.setAttribute("points", places.join(" "));
      line.setAttribute("class", at === 0 ? "first" : "second");
      return line;
    }),
  );
}

function rates(details) {
  const samples = details?.samples ?? [];
  const found = [];
  for (let at = 0; at + 1 < samples.length; at += 1) {
    const seconds = (samples[at].timestamp - samples[at + 1].timestamp) / 1000;
    found.push(seconds > 0 ? Math.max(0, (samples[at].sample - samples[at + 1].sample) / seconds) : 0);
  }
  return found;
}

async function overview() {
  const all = await ask("/api/overview?msg_rates_age=600&lengths_age=600");
  get("node").textContent = all.cluster_name;
  get("alarm").textContent = all.alarm ? `Publishers are stopped: ${all.alarm}` : "";
  const stats = all.message_stats;
  const totals = [
    ["Ready", number(all.queue_totals.messages_ready)],
    ["Unacked", number(all.queue_totals.messages_unacknowledged)],
    ["In/s", rate(stats.publish_details?.rate)],
    ["Out/s", rate(stats.deliver_get_details?.rate)],
    ["Queues", number(all.object_totals.queues)],
    ["Consumers", number(all.object_totals.consumers)],
    ["Connections", number(all.object_totals.connections)],
    ["Channels", number(all.object_totals.channels)],
  ];
  get("totals").replaceChildren(
    ...totals.map(([name, value]) => {
      const group = document.createElement("div");
      const [term, text] = [document.createElement("dt"), document.createElement("dd")];
      [term.textContent, text.textContent] = [name, value];
      group.append(term, text);
      return group;
    }),
  );
  const samples = (details) => (details?.samples ?? []).map((it) => it.sample);
  const queued = all.queue_totals;
  draw(get("lengths"), [samples(queued.messages_ready_details), samples(queued.messages_unacknowledged_details)]);
  draw(get("rates"), [rates(stats.publish_details), rates(stats.deliver_get_details)]);
}

async function queues() {
  const filter = encodeURIComponent(get("queue-filter").value);
  const list = await ask(`/api/queues?page=${page}&page_size=100&sort=name&name=${filter}`);
  pages = list.page_count;
  get("queue-page").textContent = `${list.page} of ${pages}, ${number(list.filtered_count)} queues`;
  rows(
    get("queue-rows"),
    list.items.map((it) => [
      it.vhost, it.name, it.type, number(it.messages_ready), number(it.messages_unacknowledged),
      rate(it.message_stats?.publish_details?.rate), rate(it.message_stats?.deliver_get_details?.rate), it.consumers,
    ]),
  );
}

async function connections() {
  const list = await ask("/api/connections?page=1&page_size=500&sort=name");
  rows(
    get("connection-rows"),
    list.items.map((it) => [
      it.user_provided_name ? `${it.name} ${it.user_provided_name}` : it.name, it.user, it.vhost, it.protocol,
      it.state, it.channels, rate(it.recv_oct_details?.rate), rate(it.send_oct_details?.rate),
    ]),
  );
}

async function refresh() {
  if (login === null) {
    return;
  }
  try {
    const here = location.hash.slice(1) || "overview";
    await overview();
    await ({ queues, connections }[here] ?? (() => {}))();
  } catch (error) {
    if (login !== null) {
      get("alarm").textContent = `No answer: ${error.message}`;
    }
  }
}

get("login").addEventListener("submit", async (event) => {
  event.preventDefault();
  const form = new FormData(event.target);
  const bytes = new TextEncoder().encode(`${form.get("user")}:${form.get("password")}`);
  login = `Basic ${btoa(String.fromCharCode(...bytes))}`;
  get("refused").textContent = "";
  show();
  await refresh();
});
get("leave").addEventListener("click", () => leave(""));
get("queue-filter").addEventListener("input", () => {
  page = 1;
  refresh();
});
get("back").addEventListener("click", () => {
  page = Math.max(1, page - 1);
  refresh();
});
get("on").addEventListener("click", () => {
  page = Math.min(pages, page + 1);
  refresh();
});
addEventListener("hashchange", () => {
  show();
  refresh();
});
setInterval(refresh, REFRESH_MS);
show();
