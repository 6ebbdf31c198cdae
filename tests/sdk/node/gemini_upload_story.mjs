// Gemini: a resumable upload, and a question about what was uploaded.
import { createHash } from "node:crypto";
import { GoogleGenAI } from "@google/genai";
import { PROMPT, baseUrl, check, done, placeholder, saw, whole } from "./story.mjs";

baseUrl("GOOGLE_GEMINI_BASE_URL");
const client = new GoogleGenAI({ apiKey: placeholder(), httpOptions: { timeout: 30_000 } });

// The answer to the first request names an absolute address, to which the SDK sends the content.
const payload = Buffer.from("alpha beta gamma\n".repeat(20_000));
const upload = await client.files.upload({ file: new Blob([payload]), config: { mimeType: "text/plain" } });
check("uploaded size", Number(upload.sizeBytes), payload.length);
check("uploaded content", upload.sha256Hash, createHash("sha256").update(payload).digest("hex"));

const again = await client.files.get({ name: upload.name });
check("the file is known", again.name, "files/test-file");

const { usageMetadata: usage } = await client.models.generateContent({ model: "gemini-3.6-flash", contents: PROMPT });
saw({
  input: usage.promptTokenCount - usage.cachedContentTokenCount,
  output: usage.candidatesTokenCount + usage.thoughtsTokenCount,
  cache_read: usage.cachedContentTokenCount,
  reasoning: usage.thoughtsTokenCount,
});

await whole("@google/genai");
done();
