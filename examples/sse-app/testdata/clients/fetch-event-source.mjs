// Reads a stream with @microsoft/fetch-event-source. Standard input: {url,
// method, body, headers}. Standard output: one line of JSON per call that the
// library makes, and one for how it ended.
import { text } from "node:stream/consumers";

// The library is for browsers, and looks for a tab that is visible.
globalThis.window = globalThis;
globalThis.document = { hidden: false, addEventListener() {}, removeEventListener() {} };
const { fetchEventSource } = await import("@microsoft/fetch-event-source");

const { url, method, body, headers } = JSON.parse(await text(process.stdin));
const say = (value) => console.log(JSON.stringify(value));

try {
  await fetchEventSource(url, {
    method,
    body,
    headers,
    openWhenHidden: true, // else a hidden tab would ask again when it is shown
    async onopen(response) {
      say({ call: "open", status: response.status, type: response.headers.get("content-type") });
      if (!response.ok) throw new Error(await response.text()); // else an error's text is read as events
    },
    onmessage: (m) => say({ call: "message", ...m }),
    onclose: () => say({ call: "close" }),
    onerror(e) {
      say({ call: "error", data: e.message });
      throw e; // else it asks again for ever
    },
  });
  say({ call: "resolved" });
} catch {
  say({ call: "rejected" });
}
