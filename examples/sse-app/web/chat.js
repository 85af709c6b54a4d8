// Chat: an answer that comes word by word, in one of two ways. With a ticket it
// outlives the connection and the instance; with fetch it does not.

import { $, append, complaint, countConnection, make, paint, perFrame, send } from "./ui.js";
import { LastingSource } from "./again.js";
import { messages } from "./reader.js";

// typewriter shows text at an even pace, however it arrives.
function typewriter(node, pane) {
  const instantly = matchMedia("(prefers-reduced-motion: reduce)").matches;
  let waiting = "";
  function show(n) {
    const follow = pane.scrollHeight - pane.scrollTop - pane.clientHeight < 40;
    node.appendData(waiting.slice(0, n));
    waiting = waiting.slice(n);
    if (follow) pane.scrollTop = pane.scrollHeight;
  }
  const step = perFrame(() => {
    show(instantly ? waiting.length : Math.ceil(waiting.length / 8));
    if (waiting) step();
  });
  return {
    add(text) {
      waiting += text;
      step();
    },
    finish: () => show(waiting.length),
  };
}

// Bubble is one answer on the page.
class Bubble {
  words = 0;

  constructor(pane) {
    const text = make("span", "text"), node = document.createTextNode("");
    text.append(node);
    this.pane = pane;
    this.badge = make("span", "badge");
    this.badge.hidden = true;
    this.notes = make("ul", "notes");
    this.element = make("div", "theirs");
    this.element.append(this.badge, text, this.notes);
    this.element.setAttribute("aria-busy", "true");
    this.writer = typewriter(node, pane);
    append(pane, pane, this.element);
  }

  from(instance, pid) {
    paint(this.badge, instance, pid);
    paint($("chat-instance"), instance, pid);
    countConnection(instance);
  }

  // take reads one chunk: OpenAI's JSON, the same in both ways.
  take(chunk) {
    const piece = chunk.choices?.[0]?.delta?.content;
    if (!piece) return;
    this.words++;
    this.writer.add(piece);
  }

  note(text) { append(this.pane, this.notes, make("li", "", text)); }

  finish() {
    this.writer.finish();
    this.element.setAttribute("aria-busy", "false");
  }
}

const request = (text) => ({
  method: "POST",
  headers: { "Content-Type": "application/json" },
  body: JSON.stringify({ messages: [{ role: "user", content: text }], stream: true }),
});

// ---- By fetch ----

async function byFetch(text, bubble, signal) {
  const response = await fetch("/v1/chat/completions", { ...request(text), signal });
  const instance = response.headers.get("X-Instance");
  if (instance !== null) bubble.from(instance);
  if (!response.ok) throw new Error(await complaint(response));
  for await (const data of messages(response.body)) {
    if (isEnd(data)) return;
    const chunk = JSON.parse(data);
    if (chunk.error) throw new Error(chunk.error.message);
    bubble.take(chunk);
  }
  // Without the mark, a clean end of the connection is no end of the answer.
  throw new Error("The answer was cut off: the stream ended without its end mark.");
}

const isEnd = (data) => /^\[done\]$/i.test(data);

// ---- By ticket and EventSource ----

const patience = 8; // new connections in a row that never opened

async function byTicket(text, bubble, signal) {
  const response = await fetch("/tickets", request(text)); // not aborted: a ticket we know can be stopped
  if (!response.ok) throw new Error(await complaint(response));
  const { ticket, url } = await response.json();
  let follower;
  try {
    await new Promise((done, failed) => {
      follower = follow(ticket, url, bubble, done, failed);
      signal.addEventListener("abort", () => failed(signal.reason));
      if (signal.aborted) failed(signal.reason);
      else follower.start();
    });
  } finally {
    follower.stop();
    if (signal.aborted) await stopWriting(ticket);
  }
}

// stopWriting is Stop: to close the connection would only mean not to listen.
async function stopWriting(ticket) {
  try {
    await send(`/v1/generations/${ticket}/stop`);
  } catch (e) {
    throw new Error("Stopped here, but not on the server: " + e.message);
  }
}

// follow reads an answer until done or failed.
function follow(ticket, url, bubble, done, failed) {
  let seen = -1, lastId = "";
  const source = new LastingSource({
    address() {
      const u = new URL(url, location.href);
      if (lastId) u.searchParams.set("last_event_id", lastId);
      return u;
    },
    state(state, detail) {
      if (state === "closed") return;
      $("chat-status").textContent = state === "open" ? "generating…" : detail ? `${state}, ${detail}` : `${state}…`;
    },
    refused: () => ask(ticket, source.failures).then((fault) => fault && failed(new Error(fault))),
    on: {
      hello(e) {
        const { instance, pid, resumed } = JSON.parse(e.data);
        bubble.from(instance, pid);
        if (resumed !== undefined) bubble.note(`resumed at token ${resumed} on instance ${instance}`);
      },
      takeover(e) {
        const { instance, token } = JSON.parse(e.data);
        bubble.note(`instance ${instance} went on writing at token ${token}`);
      },
      message(e) {
        if (isEnd(e.data)) return done();
        const chunk = JSON.parse(e.data);
        if (chunk.error) return failed(new Error(chunk.error.message));
        if (e.lastEventId) {
          const index = Number(e.lastEventId.slice(e.lastEventId.lastIndexOf(".") + 1));
          if (index <= seen) return; // we have it
          if (index > seen + 1) bubble.note(`${index - seen - 1} words are missing here`);
          [seen, lastId] = [index, e.lastEventId];
        }
        bubble.take(chunk);
      },
    },
  });
  return source;
}

// ask finds out why an EventSource gave up; it does not say. The answer is a
// sentence if another try makes no sense.
async function ask(ticket, failures) {
  if (failures > patience) return "The server cannot be reached.";
  const response = await fetch(`/v1/generations/${ticket}`).catch(() => null);
  if (response && [401, 403, 404, 410].includes(response.status)) return complaint(response);
  return "";
}

// ---- The form ----

const ways = {
  ticket: { answer: byTicket, route: "POST /tickets" },
  fetch: { answer: byFetch, route: "POST /v1/chat/completions" },
};
let running = null; // the AbortController of the running answer

const chosen = () => ways[document.querySelector("[name=mode]:checked").value];

async function say(text) {
  const pane = $("chat-log");
  pane.querySelector(".empty")?.remove();
  append(pane, pane, make("p", "mine", text));
  const bubble = new Bubble(pane);
  running = new AbortController();
  $("chat-send").disabled = true;
  $("chat-stop").disabled = false;
  $("chat-status").textContent = "generating…";
  let outcome;
  try {
    await chosen().answer(text, bubble, running.signal);
    outcome = `answer complete, ${bubble.words} words`;
  } catch (e) {
    outcome = e.name === "AbortError" ? "stopped" : e.message;
    if (e.name !== "AbortError") append(pane, pane, make("p", "fault", e.message));
  }
  bubble.finish();
  running = null;
  $("chat-send").disabled = false;
  noStop();
  $("chat-status").textContent = outcome;
}

// noStop disables the button, and keeps the focus from getting lost with it.
function noStop() {
  if (document.activeElement === $("chat-stop")) $("chat-input").focus();
  $("chat-stop").disabled = true;
}

function stop() {
  if (!running || running.signal.aborted) return;
  $("chat-status").textContent = "stopping…";
  noStop();
  running.abort();
}

export function startChat() {
  const show = () => { $("chat-route").textContent = chosen().route; };
  for (const radio of document.querySelectorAll("[name=mode]")) radio.addEventListener("change", show);
  show(); // a browser may remember the choice
  $("chat-form").addEventListener("submit", (e) => {
    e.preventDefault();
    const text = $("chat-input").value.trim();
    if (running || !text) return;
    $("chat-input").value = "";
    $("chat-input").focus();
    say(text);
  });
  $("chat-stop").addEventListener("click", stop);
  $("chat-input").addEventListener("keydown", (e) => {
    if (e.key !== "Enter" || e.shiftKey || e.isComposing) return;
    e.preventDefault();
    $("chat-form").requestSubmit();
  });
  document.addEventListener("keydown", (e) => {
    if (e.key === "Escape") stop();
  });
}
