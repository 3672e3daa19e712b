"use strict";

// A STOMP 1.2 client for a page: as much of one as a chat needs. Programs take @stomp/stompjs.
class Stomp {
  constructor(url, handlers) {
    this.handlers = handlers;
    this.bytes = new Uint8Array(0);
    this.socket = new WebSocket(url, ["v12.stomp"]);
    this.socket.binaryType = "arraybuffer";
    this.socket.onopen = () => handlers.open(this);
    this.socket.onmessage = (event) => this.receive(event.data);
    this.socket.onclose = () => { clearInterval(this.beat); handlers.close(); };
  }

  send(command, headers, body = "") {
    const escape = (text) => command === "CONNECT" ? String(text) : String(text)
      .replace(/\\/g, "\\\\").replace(/\n/g, "\\n").replace(/\r/g, "\\r").replace(/:/g, "\\c");
    const lines = Object.entries(headers).map(([name, value]) => `${escape(name)}:${escape(value)}\n`);
    const length = body ? `content-length:${new TextEncoder().encode(body).length}\n` : "";
    const shown = lines.map((line) => line.startsWith("passcode:") ? "passcode:…\n" : line);
    this.handlers.wire("→", `${command}\n${shown.join("")}${length}\n${body}`);
    this.socket.send(`${command}\n${lines.join("")}${length}\n${body}\0`);
  }

  // Frames may span messages, and one message may hold several.
  receive(data) {
    const piece = typeof data === "string" ? new TextEncoder().encode(data) : new Uint8Array(data);
    const joined = new Uint8Array(this.bytes.length + piece.length);
    joined.set(this.bytes);
    joined.set(piece, this.bytes.length);
    this.bytes = joined;
    while (this.take());
  }

  take() {
    let start = 0;
    while (this.bytes[start] === 10 || this.bytes[start] === 13) start++;
    this.bytes = this.bytes.subarray(start);
    const head = this.bytes.findIndex((byte, at) => byte === 10 && this.bytes[at + 1] === 10);
    if (head < 0) return false;
    const decoder = new TextDecoder();
    const [command, ...lines] = decoder.decode(this.bytes.subarray(0, head)).split("\n");
    const headers = new Map();
    const unescape = (text) => text.replace(/\\([nrc\\])/g, (_, kind) => ({ n: "\n", r: "\r", c: ":", "\\": "\\" })[kind]);
    for (const line of lines) {
      const colon = line.indexOf(":");
      const name = unescape(line.slice(0, colon));
      if (!headers.has(name)) headers.set(name, unescape(line.slice(colon + 1)));
    }
    const body = head + 2;
    const length = headers.has("content-length") ? Number(headers.get("content-length")) : this.bytes.subarray(body).indexOf(0);
    if (length < 0 || this.bytes.length <= body + length) return false;
    const text = decoder.decode(this.bytes.subarray(body, body + length));
    this.bytes = this.bytes.slice(body + length + 1);
    this.handlers.wire("←", `${command}\n${lines.join("\n")}\n\n${text}`);
    if (command === "CONNECTED") this.keepAlive(headers.get("heart-beat"));
    this.handlers.frame(command, headers, text);
    return true;
  }

  keepAlive(agreed = "0,0") {
    const wanted = Number(agreed.split(",")[1]);
    if (wanted) this.beat = setInterval(() => this.socket.send("\n"), wanted * 0.8);
  }
}

const element = (id) => document.getElementById(id);
const status = (text, bad = false) => {
  element("status").textContent = text;
  element("status").className = bad ? "bad" : "";
};
let stomp = null;
let destination = "";

element("login").addEventListener("submit", (event) => {
  event.preventDefault();
  if (stomp) stomp.socket.close();
  const url = new URL("/ws", location.href);
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  // A destination has one level below its kind; slashes in a name are escaped.
  destination = "/topic/" + element("topic").value.trim().replace(/\//g, "%2F");
  status("Connecting…");
  let refused = false;
  const mine = new Stomp(url, {
    open: (it) => it.send("CONNECT", {
      "accept-version": "1.2", host: "/", "heart-beat": "10000,10000",
      login: element("user").value, passcode: element("password").value,
    }),
    frame: (command, headers, body) => {
      if (command === "CONNECTED") {
        mine.send("SUBSCRIBE", { id: "chat", destination });
        element("send").querySelector("button").disabled = false;
        status(`Connected to ${headers.get("server") || "the broker"}. Session ${headers.get("session")}.`);
        element("text").focus();
      } else if (command === "MESSAGE") {
        say(headers.get("sender") || "somebody", body);
      } else if (command === "ERROR") {
        refused = true;
        status(`${headers.get("message")}: ${body.trim()}`, true);
      }
    },
    close: () => {
      if (stomp !== mine) return;
      element("send").querySelector("button").disabled = true;
      if (!refused) status("Not connected.", true);
    },
    wire: (direction, text) => {
      const wire = element("wire");
      wire.append(`${direction} ${text.trimEnd()}\n\n`);
      while (wire.childNodes.length > 100) wire.firstChild.remove();
      wire.scrollTop = wire.scrollHeight;
    },
  });
  stomp = mine;
});

element("send").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = element("text").value;
  if (!text || !stomp) return;
  stomp.send("SEND", { destination, "content-type": "text/plain", sender: element("name").value }, text);
  element("text").value = "";
});

// Texts of others become text nodes, never markup.
function say(name, text) {
  const line = document.createElement("li");
  const who = document.createElement("b");
  who.textContent = name;
  line.append(who, text);
  element("messages").append(line);
  while (element("messages").childNodes.length > 500) element("messages").firstChild.remove();
  line.scrollIntoView({ block: "nearest" });
}
