"""Cohere: chat, embeddings; refused and left. What is billed is not what is counted."""

import cohere
from story import HELD, HOLD, MISSING, PROMPT, base_url, check, done, left, placeholder, refused, saw, whole

client = cohere.ClientV2(api_key=placeholder(), base_url=base_url("CO_API_URL"), timeout=30)
MODEL = "command-a-03-2025"


def ask(prompt):
    return [{"role": "user", "content": prompt}]


def seen(usage):
    saw(input=usage.billed_units.input_tokens, output=usage.billed_units.output_tokens)


reply = client.chat(model=MODEL, messages=ask(PROMPT))
check("chat content", reply.message.content[0].text, f"You said: {PROMPT}")
seen(reply.usage)

text, usage = "", None
for event in client.chat_stream(model=MODEL, messages=ask(PROMPT)):
    if event.type == "content-delta":
        text += event.delta.message.content.text
    if event.type == "message-end":
        usage = event.delta.usage
check("streamed chat content", text, f"You said: {PROMPT}")
seen(usage)

embedded = client.embed(
    model="embed-v4.0", texts=["one", "two three"], input_type="search_document", embedding_types=["float"]
)
check("embedding", embedded.embeddings.float_[1], [0.5, -0.25, 1.0])
saw(input=embedded.meta.billed_units.input_tokens)

error = refused(lambda: client.chat(model=MISSING, messages=ask(PROMPT)), cohere.NotFoundError)
check("status of an unknown model", error.status_code, 404)

whole("cohere", cohere.__version__)

stream, got = client.chat_stream(model=MODEL, messages=ask(HOLD)), 0
for event in stream:
    got += event.type == "content-delta"
    if got == HELD:
        break
stream.close()
left()

done()
