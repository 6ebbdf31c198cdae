// OpenAI: chat, streaming chat, responses (whole and streamed), embeddings, file upload, models.
import { createHash } from "node:crypto";
import OpenAI, { toFile } from "openai";
import { PROMPT, baseUrl, check, done, placeholder } from "./story.mjs";

baseUrl("OPENAI_BASE_URL");
const client = new OpenAI({ apiKey: placeholder(), maxRetries: 0, timeout: 30_000 });
const messages = [{ role: "user", content: PROMPT }];
const results = {};

const chat = await client.chat.completions.create({ model: "gpt-5.4-mini", messages });
check("chat content", chat.choices[0].message.content, `You said: ${PROMPT}`);
results.chat = { input: chat.usage.prompt_tokens, output: chat.usage.completion_tokens };

let [text, chunks, usage] = ["", 0, null];
const stream = await client.chat.completions.create({
  model: "gpt-5.4-mini", messages, stream: true, stream_options: { include_usage: true },
});
for await (const chunk of stream) {
  chunks += 1;
  usage = chunk.usage ?? usage;
  text += chunk.choices[0]?.delta?.content ?? "";
}
check("streamed chat content", text, `You said: ${PROMPT}`);
check("streamed in several chunks", chunks > 3, true);
results.chat_stream = { chunks, input: usage.prompt_tokens, output: usage.completion_tokens };

// Without include_usage no chunk may carry usage or an empty list of choices: apps index choices[0].
for await (const chunk of await client.chat.completions.create({ model: "gpt-5.4-mini", messages, stream: true })) {
  check("a chunk has a choice", chunk.choices.length, 1);
  check("no usage unless asked for", chunk.usage ?? null, null);
}

const response = await client.responses.create({ model: "gpt-5.4-mini", input: PROMPT });
check("responses text", response.output_text, `You said: ${PROMPT}`);
results.responses = { input: response.usage.input_tokens, output: response.usage.output_tokens };

let last = null;
text = "";
for await (const event of await client.responses.create({ model: "gpt-5.4-mini", input: PROMPT, stream: true })) {
  if (event.type === "response.output_text.delta") text += event.delta;
  last = event;
}
check("streamed responses text", text, `You said: ${PROMPT}`);
check("last event", last.type, "response.completed");
results.responses_stream = { input: last.response.usage.input_tokens, output: last.response.usage.output_tokens };

// Asked for explicitly: the SDK's default is base64, which it decodes itself.
const embedding = await client.embeddings.create({
  model: "text-embedding-3-small", input: ["one", "two three"], encoding_format: "float",
});
check("embedding count", embedding.data.length, 2);
check("embedding values", embedding.data[1].embedding, [0.5, -0.25, 1.0]);
const packed = await client.embeddings.create({ model: "text-embedding-3-small", input: ["one", "two three"] });
check("embedding values from base64", Array.from(packed.data[1].embedding), [0.5, -0.25, 1.0]);
results.embeddings = { input: embedding.usage.prompt_tokens };

const line = JSON.stringify({ pad: "x".repeat(80) }) + "\n";
const payload = Buffer.from(line.repeat(12_000));
const upload = await client.files.create({ file: await toFile(payload, "training.jsonl"), purpose: "fine-tune" });
check("uploaded size", upload.bytes, payload.length);
check("uploaded name", upload.filename, "training.jsonl");
check("uploaded content", upload.sha256, createHash("sha256").update(payload).digest("hex"));
results.files = { bytes: upload.bytes };

const models = [];
for await (const model of client.models.list()) models.push(model.id);
check("models", models, ["gpt-5.4-mini", "text-embedding-3-small"]);
results.models = models;

done("openai", results);
