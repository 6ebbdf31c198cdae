"""OpenAI: chat, streaming chat, responses (whole and streamed), embeddings, file upload, models."""

import hashlib
import io

import openai
from story import PROMPT, base_url, check, done, placeholder

base_url("OPENAI_BASE_URL")
client = openai.OpenAI(api_key=placeholder(), max_retries=0, timeout=30)
results = {}

chat = client.chat.completions.create(model="gpt-5.4-mini", messages=[{"role": "user", "content": PROMPT}])
check("chat content", chat.choices[0].message.content, f"You said: {PROMPT}")
check("chat finish", chat.choices[0].finish_reason, "stop")
results["chat"] = {"input": chat.usage.prompt_tokens, "output": chat.usage.completion_tokens}

text, chunks, usage = "", 0, None
for chunk in client.chat.completions.create(
    model="gpt-5.4-mini",
    messages=[{"role": "user", "content": PROMPT}],
    stream=True,
    stream_options={"include_usage": True},
):
    chunks += 1
    usage = chunk.usage or usage
    if chunk.choices:
        text += chunk.choices[0].delta.content or ""
check("streamed chat content", text, f"You said: {PROMPT}")
check("streamed in several chunks", chunks > 3, True)
results["chat_stream"] = {"chunks": chunks, "input": usage.prompt_tokens, "output": usage.completion_tokens}

# Without include_usage no chunk may carry usage or an empty list of choices: apps index choices[0].
for chunk in client.chat.completions.create(
    model="gpt-5.4-mini", messages=[{"role": "user", "content": PROMPT}], stream=True
):
    check("a chunk has a choice", len(chunk.choices), 1)
    check("no usage unless asked for", chunk.usage, None)

response = client.responses.create(model="gpt-5.4-mini", input=PROMPT)
check("responses text", response.output_text, f"You said: {PROMPT}")
check("responses status", response.status, "completed")
results["responses"] = {"input": response.usage.input_tokens, "output": response.usage.output_tokens}

text, last = "", None
for event in client.responses.create(model="gpt-5.4-mini", input=PROMPT, stream=True):
    if event.type == "response.output_text.delta":
        text += event.delta
    last = event
check("streamed responses text", text, f"You said: {PROMPT}")
check("last event", last.type, "response.completed")
results["responses_stream"] = {"input": last.response.usage.input_tokens, "output": last.response.usage.output_tokens}

embedding = client.embeddings.create(model="text-embedding-3-small", input=["one", "two three"])
check("embedding count", len(embedding.data), 2)
check("embedding values", [round(v, 3) for v in embedding.data[1].embedding], [0.5, -0.25, 1.0])
results["embeddings"] = {"input": embedding.usage.prompt_tokens}

payload = b"".join(b'{"line": %d, "pad": "%s"}\n' % (n, b"x" * 80) for n in range(12_000))
upload = client.files.create(file=("training.jsonl", io.BytesIO(payload)), purpose="fine-tune")
check("uploaded size", upload.bytes, len(payload))
check("uploaded name", upload.filename, "training.jsonl")
check("uploaded content", upload.model_extra["sha256"], hashlib.sha256(payload).hexdigest())
results["files"] = {"bytes": upload.bytes}

models = [model.id for model in client.models.list()]
check("models", models, ["gpt-5.4-mini", "text-embedding-3-small"])
results["models"] = models

done("openai", openai.__version__, results)
