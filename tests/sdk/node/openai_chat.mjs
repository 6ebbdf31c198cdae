// Chats as the OpenAI SDK has them, whichever provider serves them: whole, streamed, refused, left and failed.
import OpenAI from "openai";
import { FAIL, HELD, HOLD, MISSING, PROMPT, broke, chatUsage, check, left, raises, refused, saw, words } from "./story.mjs";

const ask = (model, prompt, more = {}) => ({ model, messages: [{ role: "user", content: prompt }], ...more });
const piece = (chunk) => chunk.choices[0]?.delta?.content ?? "";

export async function chat(client, model) {
  const reply = await client.chat.completions.create(ask(model, PROMPT));
  check("chat content", reply.choices[0].message.content, `You said: ${PROMPT}`);
  chatUsage(reply.usage);
}

export async function streamed(client, model) {
  let [text, chunks, usage] = ["", 0, null];
  const options = { stream: true, stream_options: { include_usage: true } };
  for await (const chunk of await client.chat.completions.create(ask(model, PROMPT, options))) {
    chunks += 1;
    usage = chunk.usage ?? usage;
    text += piece(chunk);
  }
  check("streamed chat content", text, `You said: ${PROMPT}`);
  check("streamed in several chunks", chunks > 3, true);
  chatUsage(usage);
}

/** Without include_usage no chunk may carry usage or an empty list of choices: apps index choices[0]. */
export async function unasked(client, model, { reasoning = 0, ...caches } = {}) {
  for await (const chunk of await client.chat.completions.create(ask(model, PROMPT, { stream: true }))) {
    check("a chunk has a choice", chunk.choices.length, 1);
    check("no usage unless asked for", chunk.usage ?? null, null);
  }
  // The app is told nothing here, so it counts words, as this provider does.
  saw({ input: words(PROMPT), output: words(`You said: ${PROMPT}`) + reasoning, reasoning, ...caches });
}

export const missing = (client, status = 404) =>
  refused(
    () => client.chat.completions.create(ask(MISSING, PROMPT)),
    { 400: OpenAI.BadRequestError, 404: OpenAI.NotFoundError }[status],
    status,
  );

export async function abandoned(client, model, caches) {
  const stream = await client.chat.completions.create(ask(model, HOLD, { stream: true }));
  let got = 0;
  for await (const chunk of stream) {
    if (piece(chunk)) got += 1;
    // Leaving the loop aborts the request.
    if (got === HELD) break;
  }
  left(caches);
}

export async function failing(client, model, caches) {
  let got = 0;
  await raises(OpenAI.APIError, async () => {
    for await (const chunk of await client.chat.completions.create(ask(model, FAIL, { stream: true }))) {
      if (piece(chunk)) got += 1;
    }
  });
  broke(caches, got);
}

export async function embeddings(client, model) {
  const input = ["one", "two three"];
  // Asked for explicitly: the SDK's default is base64, which it decodes itself.
  const plain = await client.embeddings.create({ model, input, encoding_format: "float" });
  check("embedding values", plain.data[1].embedding, [0.5, -0.25, 1.0]);
  const packed = await client.embeddings.create({ model, input });
  check("embedding values from base64", Array.from(packed.data[1].embedding), [0.5, -0.25, 1.0]);
  for (const { usage } of [plain, packed]) saw({ input: usage.prompt_tokens });
}
