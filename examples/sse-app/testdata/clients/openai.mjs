// Drives the app with the npm package openai. Standard input: {url, leaving,
// prompt}. Standard output: one line of JSON per finished task. The last one asks
// the server that leaves, and tells of its first word, so that the test can end
// that server in the middle of the answer.
import { text } from "node:stream/consumers";
import OpenAI from "openai";

const { url, leaving, prompt } = JSON.parse(await text(process.stdin));
const at = (server) => new OpenAI({ baseURL: server + "/v1", apiKey: "none", maxRetries: 0 });
let client = at(url);
const model = "sse-app-1";
const messages = [{ role: "user", content: prompt }];
const say = (value) => console.log(JSON.stringify(value));

// read gives what a stream said, and how it ended.
async function read(request, onWord = () => {}) {
  const got = { text: "", chunks: 0, finish: null, usage: null, error: null };
  try {
    for await (const chunk of await client.chat.completions.create({ model, messages, stream: true, ...request })) {
      got.chunks++;
      got.usage = chunk.usage ?? got.usage;
      for (const choice of chunk.choices) {
        got.text += choice.delta.content ?? "";
        got.finish = choice.finish_reason ?? got.finish;
      }
      if (got.text && got.chunks === 2) onWord(); // the first chunk is the role
    }
  } catch (e) {
    got.error = fault(e);
  }
  return got;
}

const fault = (e) => ({ name: e.constructor.name, status: e.status ?? null, code: e.code ?? null, type: e.type ?? null, message: e.message });

say(await read({}));
say(await read({ max_tokens: 3, stream_options: { include_usage: true } }));

// The package's own idea of putting the chunks together is stricter.
say((await client.chat.completions.stream({ model, messages }).finalChatCompletion()).choices[0]);
const { data, response } = await client.chat.completions.create({ model, messages }).withResponse();
say({ ...data.choices[0], requestID: response.headers.get("x-request-id") });

const models = [];
for await (const m of client.models.list()) models.push(m.id);
say(models);
say(await read({ model: "no-such-model" }));

client = at(leaving);
say(await read({}, () => say("first word")));
