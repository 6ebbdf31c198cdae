// A provider that speaks like OpenAI, through OpenAI's SDK: chat, embeddings; refused, left and failed.
import OpenAI from "openai";
import * as chats from "./openai_chat.mjs";
import { baseUrl, done, placeholder, whole } from "./story.mjs";

const client = new OpenAI({
  baseURL: baseUrl("COMPATIBLE_BASE_URL"), apiKey: placeholder(), maxRetries: 0, timeout: 30_000,
});
const model = "gpt-5.4-mini";
// What the provider at hand finds in its cache and thinks beyond its words, and how it refuses an unknown model.
const { thought, unasked = chats.unasked, caches, status } = {
  deepseek: { thought: 2, caches: { cache_read: 5 }, status: 400 },
  groq: { thought: 0, caches: { cache_read: 1 }, status: 404 },
  // Says it unasked.
  openrouter: { unasked: chats.streamed, caches: { cache_read: 2, cache_write: 1 }, status: 400 },
}[process.env.STORY_PROVIDER];

await chats.chat(client, model);
await chats.streamed(client, model);
await unasked(client, model, { reasoning: thought, ...caches });
// DeepSeek has none.
if (process.env.STORY_PROVIDER !== "deepseek") await chats.embeddings(client, "text-embedding-3-small");
await chats.missing(client, status);

await whole("openai");

await chats.abandoned(client, model, caches);
await chats.failing(client, model, caches);

done();
