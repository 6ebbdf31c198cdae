// Gemini: generate, streamed generate, embedding, models.
import { GoogleGenAI } from "@google/genai";
import { PROMPT, baseUrl, check, done, placeholder } from "./story.mjs";

baseUrl("GOOGLE_GEMINI_BASE_URL");
const client = new GoogleGenAI({ apiKey: placeholder(), httpOptions: { timeout: 30_000 } });
const ask = { model: "gemini-3.6-flash", contents: PROMPT };
const results = {};

const reply = await client.models.generateContent(ask);
check("generated text", reply.text, `You said: ${PROMPT}`);
results.generate = { input: reply.usageMetadata.promptTokenCount, output: reply.usageMetadata.candidatesTokenCount };

let [text, chunks, usage] = ["", 0, null];
for await (const chunk of await client.models.generateContentStream(ask)) {
  text += chunk.text ?? "";
  chunks += 1;
  usage = chunk.usageMetadata ?? usage;
}
check("streamed text", text, `You said: ${PROMPT}`);
check("streamed in several chunks", chunks > 3, true);
results.generate_stream = { chunks, input: usage.promptTokenCount, output: usage.candidatesTokenCount };

const embedded = await client.models.embedContent({ model: "gemini-embedding-001", contents: PROMPT });
check("embedding", embedded.embeddings[0].values, [0.5, -0.25, 1.0]);
results.embed = embedded.embeddings.length;

const models = [];
for await (const model of await client.models.list({ config: { pageSize: 5 } })) models.push(model.name);
check("models", models, ["models/gemini-3.6-flash"]);
results.models = models;

done("@google/genai", results);
