// Server-Sent Events by fetch, for requests that an EventSource cannot send.

const maxLine = 1 << 20;

// messages reads the data of the events of a response body. One network read
// may hold half an event or three of them, may split a character, and may end
// between a CR and its LF. An event without its blank line is dropped, as the
// standard says: it is not whole.
export async function* messages(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "", data = [], cr = false;
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const text = cr && value[0] === "\n" ? value.slice(1) : value; // the second half of a CR LF
      cr = value.endsWith("\r");
      const lines = (rest + text).split(/\r\n|\n|\r/);
      rest = lines.pop();
      if (rest.length > maxLine) throw new Error("The server sent a line without an end.");
      for (const line of lines) {
        if (line === "data" || line.startsWith("data:")) data.push(line.slice(5).replace(/^ /, ""));
        if (line !== "" || data.length === 0) continue;
        yield data.join("\n");
        data = [];
      }
    }
  } finally {
    reader.cancel().catch(() => {}); // frees the connection when nobody reads to the end
  }
}
