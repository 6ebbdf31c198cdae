// Gemini: generate, streamed generate, embedding, models; refused, left and failed.
import { ApiError, GoogleGenAI } from "@google/genai";
import { FAIL, HELD, HOLD, MISSING, PROMPT, baseUrl, broke, check, done, left, placeholder, raises, refused, saw, whole } from "./story.mjs";

baseUrl("GOOGLE_GEMINI_BASE_URL");
const client = new GoogleGenAI({ apiKey: placeholder(), httpOptions: { timeout: 30_000 } });
const ask = (contents, model = "gemini-3.6-flash") => ({ model, contents });

/** The prompt's count contains the cached tokens; the candidates' does not contain the thoughts. */
const seen = (usage) =>
  saw({
    input: usage.promptTokenCount - usage.cachedContentTokenCount,
    output: usage.candidatesTokenCount + usage.thoughtsTokenCount,
    cache_read: usage.cachedContentTokenCount,
    reasoning: usage.thoughtsTokenCount,
  });

const reply = await client.models.generateContent(ask(PROMPT));
check("generated text", reply.text, `You said: ${PROMPT}`);
seen(reply.usageMetadata);

let [text, chunks, usage] = ["", 0, null];
for await (const chunk of await client.models.generateContentStream(ask(PROMPT))) {
  text += chunk.text ?? "";
  chunks += 1;
  usage = chunk.usageMetadata ?? usage;
}
check("streamed text", text, `You said: ${PROMPT}`);
check("streamed in several chunks", chunks > 3, true);
seen(usage);

const embedded = await client.models.embedContent({ model: "gemini-embedding-001", contents: PROMPT });
check("embedding", embedded.embeddings[0].values, [0.5, -0.25, 1.0]);

const models = [];
for await (const model of await client.models.list({ config: { pageSize: 5 } })) models.push(model.name);
check("models", models, ["models/gemini-3.6-flash"]);

await refused(() => client.models.generateContent(ask(PROMPT, MISSING)), ApiError, 404);

await whole("@google/genai");

const leaving = new AbortController();
let got = 0;
try {
  const held = { ...ask(HOLD), config: { abortSignal: leaving.signal } };
  for await (const chunk of await client.models.generateContentStream(held)) {
    if (chunk.text) got += 1;
    if (got === HELD) leaving.abort();
  }
} catch (error) {
  check(`left by choice (${error})`, leaving.signal.aborted, true);
}
left({ cache_read: 3 });

got = 0;
await raises(Error, async () => {
  for await (const chunk of await client.models.generateContentStream(ask(FAIL))) if (chunk.text) got += 1;
});
broke({ cache_read: 3 }, got);

done();
