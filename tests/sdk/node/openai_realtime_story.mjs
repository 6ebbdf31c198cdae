// OpenAI Realtime over a WebSocket: whole, refused, left. This SDK insists on wss://.
import OpenAI from "openai";
import { OpenAIRealtimeWS } from "openai/realtime/ws";
import { HELD, HOLD, MISSING, PROMPT, baseUrl, check, done, left, placeholder, saw, whole } from "./story.mjs";

baseUrl("OPENAI_BASE_URL");
const client = new OpenAI({ apiKey: placeholder(), maxRetries: 0, timeout: 30_000 });

/** Opens a session and runs `heard` on every event until it returns something. */
function session(model, started, heard) {
  const socket = new OpenAIRealtimeWS({ model }, client);
  return new Promise((resolve, reject) => {
    socket.on("error", (error) => (error.error ? resolve(error.error) : reject(error)));
    socket.on("event", (event) => {
      if (event.type === "session.created") started(socket);
      const result = heard(event, socket);
      if (result) {
        socket.socket.once("close", () => resolve(result));
        socket.close();
      }
    });
  });
}

function say(socket, text) {
  socket.send({
    type: "conversation.item.create",
    item: { type: "message", role: "user", content: [{ type: "input_text", text }] },
  });
  socket.send({ type: "response.create" });
}

let text = "";
const usage = await session("gpt-realtime-2.1", (socket) => say(socket, PROMPT), (event) => {
  if (event.type === "response.output_text.delta") text += event.delta;
  return event.type === "response.done" ? event.response.usage : null;
});
check("realtime text", text, `You said: ${PROMPT}`);
const cached = usage.input_token_details.cached_tokens;
saw({ input: usage.input_tokens - cached, output: usage.output_tokens, cache_read: cached });

const error = await session(MISSING, () => {}, () => null);
check("an unknown model", error.code, "model_not_found");

await whole("openai");

let got = 0;
await session("gpt-realtime-2.1", (socket) => say(socket, HOLD), (event) => {
  if (event.type === "response.output_text.delta") got += 1;
  return got === HELD;
});
left({ cache_read: 2 });

done();
process.exit(0);
