// Azure through OpenAI's SDK: deployments by path, and the newer API that needs no version.
import OpenAI, { AzureOpenAI } from "openai";
import * as chats from "./openai_chat.mjs";
import { baseUrl, done, placeholder, whole } from "./story.mjs";

const endpoint = baseUrl("AZURE_OPENAI_ENDPOINT");
const options = { apiKey: placeholder(), maxRetries: 0, timeout: 30_000 };
const classic = new AzureOpenAI({ endpoint, apiVersion: "2025-04-01-preview", ...options });
const newer = new OpenAI({ baseURL: `${endpoint}/openai/v1/`, ...options });
const caches = { cache_read: 2 };

for (const client of [classic, newer]) {
  await chats.chat(client, "chat-prod");
  await chats.streamed(client, "chat-prod");
  await chats.unasked(client, "chat-prod", caches);
  await chats.embeddings(client, "embed-prod");
  await chats.missing(client);
}

await whole("openai");

for (const client of [classic, newer]) {
  await chats.abandoned(client, "chat-prod", caches);
  await chats.failing(client, "chat-prod", caches);
}

done();
