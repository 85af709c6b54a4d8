// The event stream: one connection for ticks, news and pushes, because a browser
// allows six per server, all tabs together.

import { $, countConnection, line, make, paint, perFrame, Roll, send, showState } from "./ui.js";
import { LastingSource } from "./again.js";

const fresh = () => ({ count: 0, missed: 0, twice: 0, tick: 0, id: "", pid: 0 });
let feed = fresh(), source, instance = null;
let known = new Set(); // the ids of the last thousand events
const roll = new Roll($("feed-pane"), $("feed-log"));

// told is who else wants to know: hello(user), push(text), gap(log).
let told;

const figures = perFrame(() => {
  const show = (id, value, wrong) => {
    $(id).textContent = value;
    $(id).classList.toggle("wrong", Boolean(wrong));
  };
  show("feed-count", feed.count);
  show("feed-reconnects", Math.max(0, source.opened - 1));
  show("feed-missed", feed.missed, feed.missed);
  show("feed-twice", feed.twice, feed.twice);
  show("feed-last", feed.id || "–");
  $("feed-last").title = feed.id; // it may be longer than the room for it
});

function state(name, detail) {
  if (name === "open" && feed.pid) detail = `served by process ${feed.pid}`;
  if (name !== "open") feed.pid = 0; // the next connection may be another's
  showState("feed-state", name, detail);
  $("feed-toggle").textContent = source.wanted ? "Disconnect" : "Connect";
  $("feed-toggle").classList.toggle("primary", !source.wanted);
  figures();
}

function note(kind, text) {
  const entry = line(kind, make("span", "what", text));
  if (kind === "news" || kind === "push") entry.firstChild.after(make("span", "kind", kind));
  if (instance !== null) entry.append(paint(make("span", "badge"), instance));
  roll.add(entry);
}

// The id of every event is the whole position: the number of the last tick, then
// where the news and the inbox stand. The hello has the place we begin at.
const tickOf = (id) => Number(id.split("~")[0]) || 0;

// once is false for an event that was here before. tick is how far the number
// must have moved on by it.
function once(id, tick) {
  const step = tickOf(id) - feed.tick;
  if ((id && known.has(id)) || (tick && step < 1)) {
    feed.twice++;
    figures();
    return false;
  }
  if (step > 0) {
    feed.missed += step - tick;
    feed.tick += step;
  }
  remember(id);
  feed.count++;
  feed.id = id;
  figures();
  return true;
}

function remember(id) {
  known.add(id);
  if (known.size > 1000) known.delete(known.values().next().value);
}

// newsIn is the text of a news message; undefined for a tick.
function newsIn(data) {
  try {
    return JSON.parse(data).message;
  } catch {
    return undefined;
  }
}

const on = {
  hello(e) {
    const hello = JSON.parse(e.data);
    instance = hello.instance;
    if (e.lastEventId) feed.id = e.lastEventId;
    feed.pid = hello.pid;
    paint($("feed-instance"), instance, hello.pid);
    countConnection(instance);
    state("open");
    told.hello(hello.user ?? "");
  },
  message(e) {
    if (/^\[done\]$/i.test(e.data)) {
      source.stop("all messages arrived");
      return;
    }
    const news = newsIn(e.data);
    if (once(e.lastEventId, news === undefined ? 1 : 0)) note(news === undefined ? "tick" : "news", news ?? e.data);
  },
  push(e) {
    if (!once(e.lastEventId, 0)) return;
    note("push", e.data);
    told.push(e.data);
  },
  gap(e) {
    const { log } = JSON.parse(e.data);
    note("note", log === "inbox" ? "some pushes may be missing" : `some ${log} may be missing`);
    told.gap(log);
  },
  reconnect: () => note("note", "this instance ends the stream and hands over"),
};

function address() {
  const url = new URL("/stream", location.href);
  if ($("feed-limit").value) url.searchParams.set("n", $("feed-limit").value);
  if (feed.id) url.searchParams.set("last_event_id", feed.id);
  return url;
}

// refused asks what the browser does not tell. A position that the server does
// not take will never be taken: begin anew, and say so.
async function refused() {
  const response = await fetch(address(), { method: "HEAD" }).catch(() => null);
  if (response?.status !== 400 || !feed.id) return;
  feed.id = "";
  feed.tick = 0;
  known.clear();
  note("note", "the server does not know our place; begun anew, something may be missing");
}

// rejoin connects again, as another user: with our place in the ticks and the
// news, but not in the other's inbox.
export function rejoin() {
  if (!source.wanted) return;
  const [tick, news] = feed.id.split("~");
  feed.id = news ? `${tick}~${news}~` : tick;
  source.start();
}

// A hidden tab gives its connection back: six of them and no page of this server
// could load anything. It comes back to where it was.
const patience = 60000;
let hidden = 0, paused = false;

function visible() {
  clearTimeout(hidden);
  if (document.visibilityState === "hidden") {
    hidden = setTimeout(pause, patience);
  } else if (paused) {
    paused = false;
    source.start();
  }
}

function pause() {
  if (!source.wanted) return;
  paused = true;
  source.stop("as long as nobody looks");
}

async function publish(e) {
  e.preventDefault();
  const text = $("news-text").value.trim() || "Hello, SSE!";
  try {
    await send("/send_message", text);
    $("news-text").value = "";
    $("news-status").textContent = "published";
  } catch (fault) {
    $("news-status").textContent = fault.message;
  }
}

export function startFeed(listeners) {
  told = listeners;
  source = new LastingSource({ address, on, state, refused });
  $("feed-form").addEventListener("submit", (e) => {
    e.preventDefault();
    if (source.wanted) {
      source.stop("by you");
      return;
    }
    feed = fresh();
    known = new Set();
    source.opened = 0;
    roll.clear();
    source.start();
  });
  $("news-form").addEventListener("submit", publish);
  document.addEventListener("visibilitychange", visible);
  source.start();
}
