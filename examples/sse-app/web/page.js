"use strict";

const $ = (id) => document.getElementById(id);

function make(tag, className, text) {
  const e = document.createElement(tag);
  if (className) e.className = className;
  if (text !== undefined) e.textContent = text; // text only, never HTML: it comes from outside
  return e;
}

// ---- Which instance served what ----

const served = new Map(); // instance -> number of connections

function paint(badge, instance) {
  badge.textContent = `instance ${instance}`;
  badge.style.setProperty("--hue", ((Number(instance) || 0) * 77 + 220) % 360);
  badge.hidden = false;
  return badge;
}

function countConnection(instance) {
  served.set(instance, (served.get(instance) || 0) + 1);
  const sorted = [...served].sort((a, b) => String(a[0]).localeCompare(b[0], "en", { numeric: true }));
  $("instances").replaceChildren(...sorted.map(([name, n]) => {
    const badge = paint(make("span", "badge"), name);
    badge.textContent += ` × ${n}`;
    const li = make("li");
    li.append(badge);
    return li;
  }));
}

// Follow the newest entry, unless the reader scrolled up.
function append(pane, entry, list = pane) {
  const follow = pane.scrollHeight - pane.scrollTop - pane.clientHeight < 40;
  list.append(entry);
  if (follow) pane.scrollTop = pane.scrollHeight;
}

// ---- Chat: fetch, because an EventSource can send no body ----

// messages reads Server-Sent Events from a response body. One network read may
// hold half an event or three of them, and may split a character.
async function* messages(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "", data = [];
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (rest + value).split(/\r\n|\n|\r(?!$)/);
    rest = lines.pop();
    for (const line of lines) {
      if (line.startsWith("data:")) data.push(line.slice(5).replace(/^ /, ""));
      if (line === "" && data.length) {
        yield data.join("\n");
        data = [];
      }
    }
  }
}

// typewriter shows text at an even pace, however it arrives.
function typewriter(node, pane) {
  const instantly = matchMedia("(prefers-reduced-motion: reduce)").matches;
  let waiting = "", frame = 0;
  function show(n) {
    const follow = pane.scrollHeight - pane.scrollTop - pane.clientHeight < 40;
    node.appendData(waiting.slice(0, n));
    waiting = waiting.slice(n);
    if (follow) pane.scrollTop = pane.scrollHeight;
  }
  function step() {
    frame = 0;
    show(instantly ? waiting.length : Math.ceil(waiting.length / 8));
    if (waiting) frame = requestAnimationFrame(step);
  }
  return {
    add(text) {
      waiting += text;
      frame ||= requestAnimationFrame(step);
    },
    finish() {
      cancelAnimationFrame(frame);
      show(waiting.length);
    },
  };
}

let chat = null; // the AbortController of the running answer

async function ask(text) {
  const pane = $("chat-log");
  pane.querySelector(".empty")?.remove();
  append(pane, make("p", "mine", text));
  const bubble = make("div", "theirs"), words = make("span", "text"), node = document.createTextNode("");
  words.append(node);
  bubble.append(words);
  bubble.setAttribute("aria-busy", "true");
  append(pane, bubble);
  const writer = typewriter(node, pane);

  chat = new AbortController();
  $("chat-send").disabled = true;
  $("chat-stop").disabled = false;
  $("chat-status").textContent = "generating…";
  let outcome;
  try {
    outcome = await stream(text, chat.signal, bubble, writer);
  } catch (e) {
    outcome = e.name === "AbortError" ? "stopped" : e.message;
    if (e.name !== "AbortError") append(pane, make("p", "fault", e.message));
  }
  writer.finish();
  chat = null;
  bubble.setAttribute("aria-busy", "false");
  $("chat-send").disabled = false;
  $("chat-stop").disabled = true;
  $("chat-status").textContent = outcome;
}

async function stream(text, signal, bubble, writer) {
  const response = await fetch("/v1/chat/completions", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ messages: [{ role: "user", content: text }], stream: true }),
    signal,
  });
  const instance = response.headers.get("X-Instance");
  if (instance !== null) {
    paint($("chat-instance"), instance);
    bubble.prepend(paint(make("span", "badge"), instance));
    countConnection(instance);
  }
  if (!response.ok) {
    const body = await response.json().catch(() => null);
    throw new Error(body?.error?.message ?? `The server answered ${response.status}.`);
  }
  let count = 0;
  for await (const data of messages(response.body)) {
    if (data === "[DONE]") return `answer complete, ${count} words`;
    const chunk = JSON.parse(data);
    if (chunk.error) throw new Error(chunk.error.message);
    const piece = chunk.choices[0]?.delta.content;
    if (piece) {
      count++;
      writer.add(piece);
    }
  }
  throw new Error("The answer was cut off: the stream ended without its end mark.");
}

$("chat-form").addEventListener("submit", (e) => {
  e.preventDefault();
  const text = $("chat-input").value.trim();
  if (chat || !text) return;
  $("chat-input").value = "";
  $("chat-input").focus();
  ask(text);
});
$("chat-stop").addEventListener("click", () => chat?.abort());
$("chat-input").addEventListener("keydown", (e) => {
  if (e.key === "Enter" && !e.shiftKey && !e.isComposing) {
    e.preventDefault();
    $("chat-form").requestSubmit();
  }
});
document.addEventListener("keydown", (e) => {
  if (e.key === "Escape") chat?.abort();
});

// ---- Event stream ----

const feed = {
  source: null, // the EventSource, while we want to be connected
  timer: 0, // of our own rebuild
  failures: 0, // rebuilds in a row without an open stream
  opened: 0, count: 0, missed: 0, twice: 0, lastId: "", instance: null,
};

function setState(state, detail) {
  $("feed-state").dataset.state = state;
  $("feed-state-text").textContent = detail ? `${state}: ${detail}` : state;
  const wanted = Boolean(feed.source || feed.timer);
  $("feed-toggle").textContent = wanted ? "Disconnect" : "Connect";
  $("feed-toggle").classList.toggle("primary", !wanted);
}

function figures() {
  $("feed-count").textContent = feed.count;
  $("feed-reconnects").textContent = Math.max(0, feed.opened - 1);
  $("feed-missed").textContent = feed.missed;
  $("feed-missed").classList.toggle("wrong", feed.missed > 0);
  $("feed-twice").textContent = feed.twice;
  $("feed-twice").classList.toggle("wrong", feed.twice > 0);
  $("feed-last").textContent = feed.lastId || "–";
}

function note(text, className) {
  const li = make("li", className);
  const time = make("time", "", new Date().toLocaleTimeString([], { hour12: false }));
  li.append(time, make("span", "", text));
  if (feed.instance !== null) li.append(paint(make("span", "badge"), feed.instance));
  append($("feed-pane"), li, $("feed-log"));
  while ($("feed-log").childElementCount > 200) $("feed-log").firstElementChild.remove();
}

function connect() {
  clearTimeout(feed.timer);
  feed.timer = 0;
  const url = new URL("/stream", location.href);
  if ($("feed-limit").value) url.searchParams.set("n", $("feed-limit").value);
  // A new EventSource knows no Last-Event-ID; after its first event it does.
  if (feed.lastId) url.searchParams.set("last_event_id", feed.lastId);
  const source = feed.source = new EventSource(url);
  setState(feed.opened ? "reconnecting" : "connecting");

  source.addEventListener("open", () => {
    feed.failures = 0;
    feed.opened++;
    figures();
    setState("open");
  });
  source.addEventListener("hello", (e) => {
    const { instance, pid } = JSON.parse(e.data);
    feed.instance = instance;
    paint($("feed-instance"), instance);
    countConnection(instance);
    setState("open", `served by process ${pid}`);
  });
  source.addEventListener("reconnect", () => note("this instance ends the stream and hands over", "note"));
  source.addEventListener("message", (e) => receive(e.data, e.lastEventId));
  source.addEventListener("error", () => {
    if (source !== feed.source) return;
    if (source.readyState === EventSource.CONNECTING) {
      setState("reconnecting");
      return;
    }
    rebuild();
  });
}

function receive(data, id) {
  if (/^\[done\]$/i.test(data)) {
    disconnect("all messages arrived");
    return;
  }
  const step = Number(id) - (Number(feed.lastId) || 0);
  if (step < 1) {
    feed.twice++;
  } else {
    feed.missed += step - 1;
    feed.count++;
    feed.lastId = id;
    note(data);
  }
  figures();
}

// The browser gives up for good when it sees any answer but 200 (a proxy's 502
// while everything restarts); we do not.
function rebuild() {
  feed.source.close();
  feed.source = null;
  const wait = Math.min(30000, 500 * 2 ** feed.failures++) * (0.5 + Math.random() / 2);
  feed.timer = setTimeout(connect, wait);
  setState("reconnecting", `next try in ${(wait / 1000).toFixed(1)} s`);
}

function disconnect(why) {
  clearTimeout(feed.timer);
  feed.timer = 0;
  feed.source?.close();
  feed.source = null;
  setState("closed", why);
}

$("feed-form").addEventListener("submit", (e) => {
  e.preventDefault();
  if (feed.source || feed.timer) {
    disconnect("by you");
    return;
  }
  Object.assign(feed, { failures: 0, opened: 0, count: 0, missed: 0, twice: 0, lastId: "", instance: null });
  $("feed-log").replaceChildren();
  figures();
  connect();
});

// Do not sit out a long wait when the network or the reader is back.
function hurry() {
  if (feed.timer && document.visibilityState === "visible") connect();
}
addEventListener("online", hurry);
document.addEventListener("visibilitychange", hurry);

connect();
