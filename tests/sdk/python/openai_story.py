"""OpenAI: chat, responses (whole and streamed), embeddings, upload, transcription, models; refused, left and failed."""

import hashlib
import io

import openai
import openai_chat as chats
from story import FAIL, HELD, HOLD, PROMPT, base_url, broke, check, done, left, placeholder, saw, whole

base_url("OPENAI_BASE_URL")
client = openai.OpenAI(api_key=placeholder(), max_retries=0, timeout=30)
MODEL = "gpt-5.4-mini"

chats.chat(client, MODEL)
chats.streamed(client, MODEL, stream_options={"include_usage": True})
chats.unasked(client, MODEL)


def response_usage(usage):
    details = usage.input_tokens_details
    read, write = details.cached_tokens, getattr(details, "cache_write_tokens", 0) or 0
    saw(
        input=usage.input_tokens - read - write,
        output=usage.output_tokens,
        cache_read=read,
        cache_write=write,
        reasoning=usage.output_tokens_details.reasoning_tokens,
    )


response = client.responses.create(model=MODEL, input=PROMPT)
check("responses text", response.output_text, f"You said: {PROMPT}")
check("responses status", response.status, "completed")
response_usage(response.usage)

text, last = "", None
for event in client.responses.create(model=MODEL, input=PROMPT, stream=True):
    if event.type == "response.output_text.delta":
        text += event.delta
    last = event
check("streamed responses text", text, f"You said: {PROMPT}")
check("last event", last.type, "response.completed")
response_usage(last.response.usage)

chats.embeddings(client, "text-embedding-3-small")

payload = b"".join(b'{"line": %d, "pad": "%s"}\n' % (n, b"x" * 80) for n in range(12_000))
upload = client.files.create(file=("training.jsonl", io.BytesIO(payload)), purpose="fine-tune")
check("uploaded size", upload.bytes, len(payload))
check("uploaded name", upload.filename, "training.jsonl")
check("uploaded content", upload.model_extra["sha256"], hashlib.sha256(payload).hexdigest())

# Python's SDK writes the form's fields before the file.
speech = b"RIFF" + b"alpha beta gamma"
heard = client.audio.transcriptions.create(model="gpt-4o-mini-transcribe", file=("speech.wav", io.BytesIO(speech)))
check("transcription", heard.text, "alpha beta gamma")
saw(input=heard.usage.input_tokens, output=heard.usage.output_tokens)

models = [model.id for model in client.models.list()]
check("models", models, ["gpt-5.4-mini", "text-embedding-3-small"])

chats.missing(client, openai.NotFoundError)

whole("openai", openai.__version__)

chats.abandoned(client, MODEL)
stream, got = client.responses.create(model=MODEL, input=HOLD, stream=True), 0
for event in stream:
    got += event.type == "response.output_text.delta"
    if got == HELD:
        break
stream.close()
left(cache_read=4, cache_write=2)

chats.failing(client, MODEL, openai.APIError)
events = list(client.responses.create(model=MODEL, input=FAIL, stream=True))
check("a failed response says so", events[-1].type, "response.failed")
check("and why", events[-1].response.error.code, "server_error")
broke(cache_read=4, cache_write=2)

done()
