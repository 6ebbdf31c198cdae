// Gemini Live: a session over a WebSocket, the key in the address; whole, refused, left.
import { GoogleGenAI, Modality } from "@google/genai";
import { HELD, HOLD, MISSING, PROMPT, baseUrl, check, done, left, placeholder, saw, whole } from "./story.mjs";

baseUrl("GOOGLE_GEMINI_BASE_URL");
const client = new GoogleGenAI({ apiKey: placeholder() });

/** Opens a session, says `prompt`, and runs `heard` on every message until it returns something. */
async function session(model, prompt, heard) {
  let closed, found, live;
  const end = new Promise((resolve) => (closed = resolve));
  const connecting = client.live.connect({
    model,
    config: { responseModalities: [Modality.TEXT] },
    callbacks: {
      onmessage: (message) => {
        const result = heard(message);
        if (result) {
          found = result;
          live.close();
        }
      },
      onclose: (event) => closed(found ?? { code: event.code }),
      onerror: (event) => closed({ error: String(event.message ?? event) }),
    },
  });
  // When the server ends the session at once, one generation of the SDK rejects, the other waits for ever.
  live = await Promise.race([connecting.catch(() => null), end.then(() => null)]);
  if (prompt) live.sendClientContent({ turns: [{ role: "user", parts: [{ text: prompt }] }], turnComplete: true });
  return end;
}

const piece = (message) => message.serverContent?.modelTurn?.parts?.[0]?.text ?? "";

let text = "";
const usage = await session("gemini-3.1-flash-live", PROMPT, (message) => {
  text += piece(message);
  return message.usageMetadata;
});
check("live text", text, `You said: ${PROMPT}`);
saw({
  input: usage.promptTokenCount - usage.cachedContentTokenCount,
  output: usage.responseTokenCount + usage.thoughtsTokenCount,
  cache_read: usage.cachedContentTokenCount,
  reasoning: usage.thoughtsTokenCount,
});

// The server ends the session instead of acknowledging it.
const refusal = await session(MISSING, null, () => null);
check("close code of an unknown model", refusal.code, 1008);

await whole("@google/genai");

let got = 0;
await session("gemini-3.1-flash-live", HOLD, (message) => {
  if (piece(message)) got += 1;
  return got === HELD;
});
left({ cache_read: 2 });

done();
process.exit(0);
