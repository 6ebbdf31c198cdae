// Anthropic: messages, streamed messages, models; refused, left and failed.
import Anthropic from "@anthropic-ai/sdk";
import { FAIL, HELD, HOLD, MISSING, PROMPT, baseUrl, broke, check, done, left, placeholder, raises, refused, saw, whole } from "./story.mjs";

baseUrl("ANTHROPIC_BASE_URL");
const client = new Anthropic({ apiKey: placeholder(), maxRetries: 0, timeout: 30_000 });
const ask = (content, model = "claude-haiku-4-5") => ({ model, max_tokens: 64, messages: [{ role: "user", content }] });
// What this provider finds in its cache, and puts there.
const caches = { cache_read: 7, cache_write: 3 };

const seen = (usage) =>
  saw({
    input: usage.input_tokens,
    output: usage.output_tokens,
    cache_read: usage.cache_read_input_tokens,
    cache_write: usage.cache_creation_input_tokens,
  });

const message = await client.messages.create(ask(PROMPT));
check("message text", message.content[0].text, `You said: ${PROMPT}`);
check("stop reason", message.stop_reason, "end_turn");
seen(message.usage);

let [text, pieces] = ["", 0];
const stream = client.messages.stream(ask(PROMPT));
stream.on("text", (piece) => {
  text += piece;
  pieces += 1;
});
const final = await stream.finalMessage();
check("streamed text", text, `You said: ${PROMPT}`);
check("streamed in several pieces", pieces > 3, true);
check("accumulated text", final.content[0].text, text);
seen(final.usage);

const models = [];
for await (const model of client.models.list({ limit: 5 })) models.push(model.id);
check("models", models, ["claude-haiku-4-5"]);

await refused(() => client.messages.create(ask(PROMPT, MISSING)), Anthropic.NotFoundError, 404);

await whole("@anthropic-ai/sdk");

const isPiece = (event) => event.type === "content_block_delta";
let got = 0;
for await (const event of await client.messages.create({ ...ask(HOLD), stream: true })) {
  if (isPiece(event)) got += 1;
  // Leaving the loop aborts the request.
  if (got === HELD) break;
}
left(caches);

got = 0;
await raises(Anthropic.APIError, async () => {
  for await (const event of await client.messages.create({ ...ask(FAIL), stream: true })) if (isPiece(event)) got += 1;
});
broke(caches, got);

done();
