// Listens with the npm package eventsource until it is ended. Standard input:
// {url, names}. Standard output: one line of JSON per event, and per error with
// the state that the source is in after it.
import { text } from "node:stream/consumers";
import { EventSource } from "eventsource";

const { url, names } = JSON.parse(await text(process.stdin));
const say = (value) => console.log(JSON.stringify(value));

const source = new EventSource(url);
for (const name of ["message", ...names]) {
  source.addEventListener(name, (e) => say({ event: name, id: e.lastEventId, data: e.data }));
}
source.onopen = () => say({ event: "open" });
source.onerror = (e) => say({ event: "error", code: e.code ?? 0, closed: source.readyState === EventSource.CLOSED });
