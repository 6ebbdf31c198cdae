// Anthropic: messages, streamed messages, models.
import Anthropic from "@anthropic-ai/sdk";
import { PROMPT, baseUrl, check, done, placeholder } from "./story.mjs";

baseUrl("ANTHROPIC_BASE_URL");
const client = new Anthropic({ apiKey: placeholder(), maxRetries: 0, timeout: 30_000 });
const ask = { model: "claude-haiku-4-5", max_tokens: 64, messages: [{ role: "user", content: PROMPT }] };
const results = {};

const message = await client.messages.create(ask);
check("message text", message.content[0].text, `You said: ${PROMPT}`);
check("stop reason", message.stop_reason, "end_turn");
results.messages = { input: message.usage.input_tokens, output: message.usage.output_tokens };

let [text, pieces] = ["", 0];
const stream = client.messages.stream(ask);
stream.on("text", (piece) => {
  text += piece;
  pieces += 1;
});
const final = await stream.finalMessage();
check("streamed text", text, `You said: ${PROMPT}`);
check("streamed in several pieces", pieces > 3, true);
check("accumulated text", final.content[0].text, text);
results.messages_stream = { pieces, input: final.usage.input_tokens, output: final.usage.output_tokens };

const models = [];
for await (const model of client.models.list({ limit: 5 })) models.push(model.id);
check("models", models, ["claude-haiku-4-5"]);
results.models = models;

done("@anthropic-ai/sdk", results);
