// OpenAI: chat, responses (whole and streamed), embeddings, upload, transcription, models; refused, left and failed.
import { createHash } from "node:crypto";
import OpenAI, { toFile } from "openai";
import * as chats from "./openai_chat.mjs";
import { FAIL, HELD, HOLD, PROMPT, baseUrl, broke, check, done, left, placeholder, responseUsage, saw, whole } from "./story.mjs";

baseUrl("OPENAI_BASE_URL");
const client = new OpenAI({ apiKey: placeholder(), maxRetries: 0, timeout: 30_000 });
const model = "gpt-5.4-mini";

await chats.chat(client, model);
await chats.streamed(client, model);
await chats.unasked(client, model);

const response = await client.responses.create({ model, input: PROMPT });
check("responses text", response.output_text, `You said: ${PROMPT}`);
responseUsage(response.usage);

let [text, last] = ["", null];
for await (const event of await client.responses.create({ model, input: PROMPT, stream: true })) {
  if (event.type === "response.output_text.delta") text += event.delta;
  last = event;
}
check("streamed responses text", text, `You said: ${PROMPT}`);
check("last event", last.type, "response.completed");
responseUsage(last.response.usage);

await chats.embeddings(client, "text-embedding-3-small");

const line = JSON.stringify({ pad: "x".repeat(80) }) + "\n";
const payload = Buffer.from(line.repeat(12_000));
const upload = await client.files.create({ file: await toFile(payload, "training.jsonl"), purpose: "fine-tune" });
check("uploaded size", upload.bytes, payload.length);
check("uploaded name", upload.filename, "training.jsonl");
check("uploaded content", upload.sha256, createHash("sha256").update(payload).digest("hex"));

// Fields keep the order in which they are given here, so the file comes before the model.
const speech = Buffer.from("RIFFalpha beta gamma");
const heard = await client.audio.transcriptions.create({
  file: await toFile(speech, "speech.wav"), model: "gpt-4o-mini-transcribe",
});
check("transcription", heard.text, "alpha beta gamma");
saw({ input: heard.usage.input_tokens, output: heard.usage.output_tokens });

const models = [];
for await (const model of client.models.list()) models.push(model.id);
check("models", models, ["gpt-5.4-mini", "text-embedding-3-small"]);

await chats.missing(client);

await whole("openai");

await chats.abandoned(client, model);
let got = 0;
for await (const event of await client.responses.create({ model, input: HOLD, stream: true })) {
  if (event.type === "response.output_text.delta") got += 1;
  if (got === HELD) break;
}
left({ cache_read: 4, cache_write: 2 });

await chats.failing(client, model);
for await (const event of await client.responses.create({ model, input: FAIL, stream: true })) last = event;
check("a failed response says so", last.type, "response.failed");
broke({ cache_read: 4, cache_write: 2 });

done();
