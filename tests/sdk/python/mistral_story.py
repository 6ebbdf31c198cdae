"""Mistral: chat, embeddings, upload, models; refused and left."""

from mistralai.client import Mistral, _version, errors
from story import HELD, HOLD, MISSING, PROMPT, base_url, check, done, left, placeholder, refused, saw, whole

client = Mistral(api_key=placeholder(), server_url=base_url("MISTRAL_BASE_URL"), timeout_ms=30_000)
MODEL = "mistral-small-latest"


def ask(prompt):
    return [{"role": "user", "content": prompt}]


def seen(usage):
    cached = usage.model_dump().get("num_cached_tokens") or 0
    saw(input=usage.prompt_tokens - cached, output=usage.completion_tokens, cache_read=cached)


reply = client.chat.complete(model=MODEL, messages=ask(PROMPT))
check("chat content", reply.choices[0].message.content, f"You said: {PROMPT}")
seen(reply.usage)

text, usage = "", None
with client.chat.stream(model=MODEL, messages=ask(PROMPT)) as stream:
    for event in stream:
        text += event.data.choices[0].delta.content or ""
        usage = event.data.usage or usage
check("streamed chat content", text, f"You said: {PROMPT}")
seen(usage)

embedded = client.embeddings.create(model="mistral-embed", inputs=["one", "two three"])
check("embedding", embedded.data[1].embedding, [0.5, -0.25, 1.0])
saw(input=embedded.usage.prompt_tokens)

upload = client.files.upload(file={"file_name": "lines.jsonl", "content": b"{}\n" * 5_000}, purpose="batch")
check("uploaded size", upload.size_bytes, 15_000)

error = refused(lambda: client.chat.complete(model=MISSING, messages=ask(PROMPT)), errors.SDKError)
check("status of an unknown model", error.status_code, 400)

whole("mistralai", _version.__version__)

with client.chat.stream(model=MODEL, messages=ask(HOLD)) as stream:
    got = 0
    for event in stream:
        got += bool(event.data.choices[0].delta.content)
        if got == HELD:
            break
left(cache_read=2)

done()
