// Gives streams to three parsers. Standard input: a list of streams, each with
// its bytes (base64), the lengths of pieces to cut it into, the URLs that serve
// it, and the names of its events. Standard output: per stream and parser, a
// list of events for each way of cutting.
import { text } from "node:stream/consumers";
import { createParser } from "eventsource-parser";
import { EventSource } from "eventsource";
import { getLines, getMessages } from "@microsoft/fetch-event-source/lib/cjs/parse.js";

// pieces cuts bytes into pieces of one length; 0: no cut.
function* pieces(bytes, length) {
  for (let at = 0; at < bytes.length; at += length || bytes.length) {
    yield bytes.subarray(at, at + (length || bytes.length));
  }
}

function eventsourceParser(bytes, length) {
  const events = [];
  let id = "";
  const parser = createParser({
    onEvent(e) {
      id = e.id ?? id;
      events.push({ id, event: e.event ?? "message", data: e.data });
    },
  });
  const decoder = new TextDecoder();
  for (const piece of pieces(bytes, length)) parser.feed(decoder.decode(piece, { stream: true }));
  return events;
}

function fetchEventSource(bytes, length) {
  const events = [];
  let id = "";
  const feed = getLines(
    getMessages((sent) => { id = sent }, () => {}, (m) => {
      events.push({ id, event: m.event || "message", data: m.data });
    }),
  );
  for (const piece of pieces(bytes, length)) feed(new Uint8Array(piece));
  return events;
}

function eventsource(url, names) {
  return new Promise((resolve) => {
    const events = [];
    let id = "";
    const es = new EventSource(url);
    for (const name of new Set(["message", ...names])) {
      es.addEventListener(name, (e) => {
        id = e.lastEventId || id;
        events.push({ id, event: e.type, data: e.data });
      });
    }
    es.onerror = () => { es.close(); resolve(events) }; // the stream ended
  });
}

const answers = [];
for (const { bytes, lengths, urls, names } of JSON.parse(await text(process.stdin))) {
  const stream = Buffer.from(bytes, "base64");
  answers.push({
    "eventsource-parser": lengths.map((n) => eventsourceParser(stream, n)),
    "fetch-event-source": lengths.map((n) => fetchEventSource(stream, n)),
    "eventsource": await Promise.all(urls.map((url) => eventsource(url, names))),
  });
}
console.log(JSON.stringify(answers));
