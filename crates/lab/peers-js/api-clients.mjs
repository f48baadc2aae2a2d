// The official `openai` and `anthropic` packages against the HTTP API of a gateway.
//
//   API_KEY=… node api-clients.mjs '{"url":"http://…", "part":"openai"|"anthropic"|…}'
//
// The model behind the gateway answers "What is this?" with THIS, "Count" with COUNT piece by piece, and says back whatever
// else it is asked. The last line is a JSON report: {done:[part], problems:[text]}.

import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const require = createRequire(process.env.PEER_MODULES + "/");
const load = (name) => import(pathToFileURL(require.resolve(name)).href);
const { default: OpenAI } = await load("openai");
const { default: Anthropic } = await load("@anthropic-ai/sdk");

const { url, part } = JSON.parse(process.argv[2]);
const apiKey = process.env.API_KEY;
const openai = new OpenAI({ apiKey, baseURL: `${url}/v1`, maxRetries: 0 });
const anthropic = new Anthropic({ apiKey, authToken: null, baseURL: url, maxRetries: 0 });
const PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";
const COUNT = "one two three four five";
const user = (content) => ({ role: "user", content });
const said = (text) => `You said: ${text}`;

const problems = [];
const done = [];
const equal = (where, got, wanted) => {
  if (JSON.stringify(got) !== JSON.stringify(wanted))
    problems.push(`${where}: got ${JSON.stringify(got)}, expected ${JSON.stringify(wanted)}`);
};
async function step(name, action) {
  try {
    await action();
    done.push(name);
  } catch (error) {
    problems.push(`${name}: ${error.stack ?? error}`);
  }
}
/** The error of the client's own class for this status, with words of ours. */
async function refused(where, Kind, words, action) {
  try {
    await action();
  } catch (error) {
    if (!(error instanceof Kind)) problems.push(`${where}: ${error.constructor.name} ${error.message}, expected ${Kind.name}`);
    if (!error.message.includes(words)) problems.push(`${where}: ${error.message} does not say ${words}`);
    return;
  }
  problems.push(`${where}: accepted`);
}

const parts = {
  async openai() {
    const client = openai;
    await step("models", async () => {
      const ids = [];
      for await (const model of client.models.list()) ids.push(model.id);
      equal("models.list", ids, ["openclaw", "openclaw/default", "openclaw/main"]);
      equal("models.retrieve", (await client.models.retrieve("openclaw/main")).id, "openclaw/main");
      await refused("models.retrieve", OpenAI.NotFoundError, "does not exist", () => client.models.retrieve("gpt-0"));
    });
    await step("chat completion", async () => {
      const messages = [{ role: "system", content: "Be brief." }, user("Hi"), { role: "assistant", content: "Hello." }, user("Repeat me")];
      const answer = await client.chat.completions.create({ model: "openclaw", messages });
      equal("object", answer.object, "chat.completion");
      equal("choice", answer.choices.map((c) => [c.index, c.message.role, c.message.content, c.finish_reason]), [[0, "assistant", said("Repeat me"), "stop"]]);
      equal("usage", [answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens], [10, 5, 15]);
    });
    await step("chat completion, streamed", async () => {
      const stream = await client.chat.completions.create({
        model: "openclaw/main", messages: [user("Count")], stream: true, stream_options: { include_usage: true },
      });
      const chunks = [];
      for await (const chunk of stream) chunks.push(chunk);
      equal("role first", chunks[0].choices[0].delta.role, "assistant");
      equal("text", chunks.map((c) => c.choices[0]?.delta.content ?? "").join(""), COUNT);
      equal("reason", chunks.at(-2).choices[0].finish_reason, "stop");
      equal("usage last", [chunks.at(-1).choices, chunks.at(-1).usage.total_tokens], [[], 15]);
      equal("one id", new Set(chunks.map((c) => c.id)).size, 1);
      if (chunks.length < 5) problems.push(`only ${chunks.length} chunks`);
    });
    await step("chat completion, the stream helper", async () => {
      const runner = client.chat.completions.stream({ model: "openclaw", messages: [user("Count")] });
      equal("final", await runner.finalContent(), COUNT);
    });
    await step("one conversation per user", async () => {
      const ask = (text) => client.chat.completions.create({ model: "openclaw", user: "ada", messages: [user(text)] });
      await ask("Remember 41");
      equal("second turn", (await ask("Recall")).choices[0].message.content, "Before: Remember 41");
    });
    await step("images", async () => {
      const image = { type: "image_url", image_url: { url: `data:image/png;base64,${PIXEL}` } };
      const content = [{ type: "text", text: "What is this?" }, image];
      const answer = await client.chat.completions.create({ model: "openclaw", messages: [user(content)] });
      equal("image", answer.choices[0].message.content, "1 picture");
      const far = { type: "image_url", image_url: { url: "http://169.254.169.254/latest/meta-data" } };
      await refused("image by URL", OpenAI.BadRequestError, "fetched", () =>
        client.chat.completions.create({ model: "openclaw", messages: [user([far])] }));
    });
    await step("errors", async () => {
      const ask = (more) => client.chat.completions.create({ model: "openclaw", messages: [user("Hi")], ...more });
      await refused("model", OpenAI.BadRequestError, "names no agent", () => ask({ model: "gpt-4o" }));
      await refused("agent", OpenAI.BadRequestError, "no agent", () => ask({ model: "openclaw/nobody" }));
      await refused("messages", OpenAI.BadRequestError, "Missing user message", () => ask({ messages: [] }));
      await refused("temperature", OpenAI.BadRequestError, "temperature", () => ask({ temperature: 3 }));
      const stranger = new OpenAI({ apiKey: "wrong", baseURL: `${url}/v1`, maxRetries: 0 });
      await refused("key", OpenAI.AuthenticationError, "Unauthorized", () =>
        stranger.chat.completions.create({ model: "openclaw", messages: [user("Hi")] }));
      await refused("the model fails", OpenAI.InternalServerError, "", () => ask({ messages: [user("Fail")] }));
    });
    await step("hanging up stops the run", async () => {
      const stream = await client.chat.completions.create({ model: "openclaw", messages: [user("Forever")], stream: true });
      for await (const chunk of stream) if (chunk.choices[0]?.delta.content) break;
      stream.controller.abort();
    });
  },
  async responses() {
    const client = openai;
    await step("response", async () => {
      const answer = await client.responses.create({ model: "openclaw", instructions: "Be brief.", input: "Repeat me" });
      equal("text", [answer.status, answer.output_text], ["completed", said("Repeat me")]);
      equal("usage", [answer.usage.input_tokens, answer.usage.output_tokens, answer.usage.total_tokens], [10, 5, 15]);
      const next = await client.responses.create({ model: "openclaw", previous_response_id: answer.id, input: "Recall" });
      equal("goes on", next.output_text, "Before: Repeat me");
      await refused("unknown", OpenAI.BadRequestError, "not known", () =>
        client.responses.create({ model: "openclaw", previous_response_id: "resp_0", input: "Hi" }));
    });
    await step("response, streamed", async () => {
      const stream = await client.responses.create({ model: "openclaw", input: [user("Count")], stream: true });
      const events = [];
      for await (const event of stream) events.push(event);
      const kinds = events.map((e) => e.type).filter((type, at, all) => type !== all[at - 1]);
      equal("order", kinds, [
        "response.created", "response.in_progress", "response.output_item.added", "response.content_part.added",
        "response.output_text.delta", "response.output_text.done", "response.content_part.done", "response.output_item.done",
        "response.completed",
      ]);
      equal("numbers", events.map((e) => e.sequence_number), events.map((_, at) => at));
      equal("deltas", events.filter((e) => e.type.endsWith("text.delta")).map((e) => e.delta).join(""), COUNT);
      equal("whole", events.at(-1).response.output[0].content[0].text, COUNT);
    });
    await step("response, the stream helper", async () => {
      const runner = client.responses.stream({ model: "openclaw", input: "Count" });
      equal("final", (await runner.finalResponse()).output_text, COUNT);
    });
    await step("a picture in a response", async () => {
      const content = [{ type: "input_text", text: "What is this?" }, { type: "input_image", detail: "auto", image_url: `data:image/png;base64,${PIXEL}` }];
      const answer = await client.responses.create({ model: "openclaw", input: [user(content)] });
      equal("picture", answer.output_text, "1 picture");
    });
  },
  async anthropic() {
    const client = anthropic;
    const base = { model: "openclaw", max_tokens: 1000 };
    await step("message", async () => {
      const answer = await client.messages.create({ ...base, system: "Be brief.", messages: [user("Repeat me")] });
      equal("message", [answer.type, answer.role, answer.stop_reason, answer.content], ["message", "assistant", "end_turn", [{ type: "text", text: said("Repeat me") }]]);
      equal("usage", [answer.usage.input_tokens, answer.usage.output_tokens], [10, 5]);
    });
    await step("message, streamed", async () => {
      const stream = client.messages.stream({ ...base, messages: [user("Count")] });
      const texts = [];
      stream.on("text", (text) => texts.push(text));
      const final = await stream.finalMessage();
      equal("text", [texts.join(""), final.content[0].text, final.stop_reason, final.usage.output_tokens], [COUNT, COUNT, "end_turn", 5]);
    });
    await step("message with a picture", async () => {
      const content = [{ type: "text", text: "What is this?" }, { type: "image", source: { type: "base64", media_type: "image/png", data: PIXEL } }];
      const answer = await client.messages.create({ ...base, messages: [user(content)] });
      equal("picture", answer.content[0].text, "1 picture");
    });
    await step("errors", async () => {
      const ask = (more) => client.messages.create({ ...base, messages: [user("Hi")], ...more });
      await refused("model", Anthropic.BadRequestError, "names no agent", () => ask({ model: "claude-opus" }));
      await refused("max_tokens", Anthropic.BadRequestError, "max_tokens", () => ask({ max_tokens: 0 }));
      const stranger = new Anthropic({ apiKey: "wrong", authToken: null, baseURL: url, maxRetries: 0 });
      await refused("key", Anthropic.AuthenticationError, "", () => stranger.messages.create({ ...base, messages: [user("Hi")] }));
      const bearer = new Anthropic({ apiKey: null, authToken: apiKey, baseURL: url, maxRetries: 0 });
      equal("bearer", (await bearer.messages.create({ ...base, messages: [user("Hi")] })).content[0].text, said("Hi"));
    });
  },
};

await parts[part]();
console.log(JSON.stringify({ done, problems }));
