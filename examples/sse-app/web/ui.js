// What every part of the page draws with.

export const $ = (id) => document.getElementById(id);

export function make(tag, className, text) {
  const e = document.createElement(tag);
  if (className) e.className = className;
  if (text !== undefined) e.textContent = text; // text only, never HTML: it comes from outside
  return e;
}

// perFrame gives a function that calls f before the next frame, once, however
// often it is called until then: a flood of events is one change of the page.
export function perFrame(f) {
  let frame = 0;
  return () => { frame ||= requestAnimationFrame(() => { frame = 0; f(); }); };
}

// append follows the newest entries, unless the reader scrolled up.
export function append(pane, list, ...entries) {
  const follow = pane.scrollHeight - pane.scrollTop - pane.clientHeight < 40;
  list.append(...entries);
  while (list.childElementCount > longest) list.firstElementChild.remove();
  if (follow) pane.scrollTop = pane.scrollHeight;
}

const longest = 200; // entries of a list

// Roll is a list that grows.
export class Roll {
  #arrived = []; // since the last frame; a hidden tab has none
  #draw = perFrame(() => append(this.pane, this.list, ...this.#arrived.splice(0)));

  constructor(pane, list) { Object.assign(this, { pane, list }); }

  add(entry) {
    this.#arrived.push(entry);
    if (this.#arrived.length > longest) this.#arrived.shift();
    this.#draw();
  }

  clear() {
    this.#arrived = [];
    this.list.replaceChildren();
  }
}

// line is one entry of a list: the time, then what is given.
export function line(className, ...parts) {
  const li = make("li", className);
  li.append(make("time", "", new Date().toLocaleTimeString([], { hour12: false })), ...parts);
  return li;
}

// showState writes a state line: connecting, open, reconnecting or closed.
export function showState(id, state, detail) {
  const p = $(id), text = detail ? `${state}: ${detail}` : state;
  p.dataset.state = state;
  // Only what changed, or a screen reader says everything again.
  const words = p.querySelector(".words");
  if (words.textContent !== text) words.textContent = text;
}

// ---- Which instance served what ----

const served = new Map(); // instance -> number of connections

export function paint(badge, instance, pid) {
  badge.textContent = pid ? `instance ${instance} · ${pid}` : `instance ${instance}`;
  badge.title = pid ? `instance ${instance}, process ${pid}` : "";
  badge.style.setProperty("--hue", ((Number(instance) || 0) * 77 + 220) % 360);
  badge.hidden = false;
  return badge;
}

export function countConnection(instance) {
  served.set(instance, (served.get(instance) || 0) + 1);
  const sorted = [...served].sort((a, b) => a[0].localeCompare(b[0], "en", { numeric: true }));
  $("instances").replaceChildren(...sorted.map(([name, n]) => {
    const badge = paint(make("span", "badge"), name);
    badge.textContent += ` × ${n}`;
    const li = make("li");
    li.append(badge);
    return li;
  }));
}

// ---- Talking to the server ----

// complaint is what the server says when it refuses: its own sentence, if any.
export async function complaint(response) {
  const text = (await response.text().catch(() => "")).trim();
  try {
    const { error } = JSON.parse(text);
    return error.message ?? String(error);
  } catch {
    const plain = !response.headers.get("Content-Type")?.includes("html");
    return plain && text ? text.slice(0, 300) : `The server answered ${response.status}.`;
  }
}

// send posts, and throws the server's sentence if it refuses.
export async function send(url, body) {
  const response = await fetch(url, { method: "POST", body });
  if (!response.ok) throw new Error(await complaint(response));
  return response;
}
