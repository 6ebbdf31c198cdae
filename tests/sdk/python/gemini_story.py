"""Gemini: generate, streamed generate, embedding, models."""

from google import genai
from google.genai import types
from story import PROMPT, base_url, check, done, placeholder

base_url("GOOGLE_GEMINI_BASE_URL")
client = genai.Client(api_key=placeholder(), http_options=types.HttpOptions(timeout=30_000))
results = {}

reply = client.models.generate_content(model="gemini-3.6-flash", contents=PROMPT)
check("generated text", reply.text, f"You said: {PROMPT}")
usage = reply.usage_metadata
results["generate"] = {"input": usage.prompt_token_count, "output": usage.candidates_token_count}

text, chunks, usage = "", 0, None
for chunk in client.models.generate_content_stream(model="gemini-3.6-flash", contents=PROMPT):
    text += chunk.text or ""
    chunks += 1
    usage = chunk.usage_metadata or usage
check("streamed text", text, f"You said: {PROMPT}")
check("streamed in several chunks", chunks > 3, True)
results["generate_stream"] = {"chunks": chunks, "input": usage.prompt_token_count, "output": usage.candidates_token_count}

embedded = client.models.embed_content(model="gemini-embedding-001", contents=PROMPT)
check("embedding", [round(v, 3) for v in embedded.embeddings[0].values], [0.5, -0.25, 1.0])
results["embed"] = len(embedded.embeddings)

models = [model.name for model in client.models.list(config={"page_size": 5})]
check("models", models, ["models/gemini-3.6-flash"])
results["models"] = models

done("google-genai", genai.__version__, results)
