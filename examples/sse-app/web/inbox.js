// Who the reader is, and what was pushed to him.

import { $, line, make, Roll, send } from "./ui.js";

let user = "", changed, count = 0;
const roll = new Roll($("inbox-pane"), $("inbox-log"));

// ---- Signing in: a name, no password; this is an example ----

// showUser follows what the stream says: the server knows whom it serves.
export function showUser(name) {
  user = name;
  $("login-field").hidden = Boolean(name);
  $("login-name").disabled = Boolean(name); // or its emptiness would forbid to sign out
  $("login-who").hidden = !name;
  $("login-user").textContent = name;
  $("login-button").textContent = name ? "Sign out" : "Sign in";
}

async function signInOrOut(e) {
  e.preventDefault();
  const name = $("login-name").value.trim();
  $("login-status").textContent = "";
  try {
    if (user) await send("/logout");
    else await send("/login", new URLSearchParams({ user: name }));
  } catch (fault) {
    $("login-status").textContent = fault.message;
    return;
  }
  clear();
  showUser(user ? "" : name);
  $(user ? "login-button" : "login-name").focus();
  $("login-status").textContent = user ? "signed in" : "signed out";
  changed(); // the stream must carry the cookie
}

// ---- The inbox ----

function clear() {
  count = 0;
  roll.clear();
  $("inbox-empty").hidden = false;
  $("inbox-count").hidden = true;
}

function add(className, text) {
  $("inbox-empty").hidden = true;
  roll.add(line(className, make("span", "what", text)));
}

export function showPush(text) {
  add("push", text);
  $("inbox-count").textContent = ++count;
  $("inbox-count").hidden = false;
}

export const showGap = () => add("note", "something before this may be missing");

// ---- Pushing ----

// The id belongs to the text, not to the attempt: sent again after a failure, it
// is not delivered twice.
const newId = () => Array.from(crypto.getRandomValues(new Uint8Array(12)), (b) => b.toString(16).padStart(2, "0")).join("");
let id = newId();

async function push(e) {
  e.preventDefault();
  const to = $("push-user").value, query = new URLSearchParams({ user: to, id });
  try {
    const { sent } = await (await send(`/push?${query}`, $("push-text").value)).json();
    $("push-status").textContent = sent[to] === false ? `${to} had it already` : `pushed to ${to}`;
  } catch (fault) {
    $("push-status").textContent = fault.message;
    return;
  }
  $("push-text").value = "";
  $("push-text").focus();
  id = newId();
}

export function startInbox(userChanged) {
  changed = userChanged;
  $("login-form").addEventListener("submit", signInOrOut);
  $("push-form").addEventListener("submit", push);
  for (const field of ["push-user", "push-text"]) $(field).addEventListener("input", () => { id = newId(); });
}
