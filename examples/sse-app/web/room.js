// The room: a WebSocket, which does not come back by itself.

import { $, line, make, Roll, showState } from "./ui.js";
import { later } from "./again.js";

const quick = 5000; // a connection that lived for less counts as a failure
const roll = new Roll($("room-pane"), $("room-log"));
let socket = null, again = null, failures = 0, opened = 0;

function state(name, detail) {
  showState("room-state", name, detail);
  $("room-send").disabled = name !== "open";
}

function connect() {
  again?.cancel();
  const s = socket = new WebSocket(new URL("/ws", location.href.replace(/^http/, "ws")));
  let since = 0;
  state(opened ? "reconnecting" : "connecting");
  s.addEventListener("open", () => {
    since = Date.now();
    opened++;
    state("open");
  });
  s.addEventListener("message", (e) => {
    $("room-empty").hidden = true;
    roll.add(line("", make("span", "what", e.data)));
  });
  s.addEventListener("close", (e) => {
    if (s !== socket) return;
    if (since && Date.now() - since > quick) failures = 0;
    again = later(failures++, connect);
    state("reconnecting", e.reason ? `${e.reason}, ${again.text}` : again.text);
  });
}

function leave() {
  const s = socket;
  socket = null;
  again?.cancel();
  s?.close(1000);
}

export function startRoom() {
  $("room-form").addEventListener("submit", (e) => {
    e.preventDefault();
    const text = $("room-text").value.trim();
    if (!text || socket?.readyState !== WebSocket.OPEN) return;
    socket.send(text);
    $("room-text").value = "";
  });
  addEventListener("pagehide", leave);
  addEventListener("pageshow", (e) => { if (e.persisted) connect(); }); // back from the browser's cache
  connect();
}
