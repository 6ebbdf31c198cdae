"""OpenAI over WebSockets: Realtime and Responses; whole, refused, left."""

import openai
from story import HELD, HOLD, MISSING, PROMPT, base_url, check, done, left, placeholder, refused, saw, whole

base_url("OPENAI_BASE_URL")
client = openai.OpenAI(api_key=placeholder(), max_retries=0, timeout=30)


def say(connection, prompt):
    content = [{"type": "input_text", "text": prompt}]
    connection.conversation.item.create(item={"type": "message", "role": "user", "content": content})
    connection.response.create()


def hear(connection, pieces=None):
    """Text and last event of a response, or of its first pieces."""
    text, got = "", 0
    for event in connection:
        if event.type == "response.output_text.delta":
            text, got = text + event.delta, got + 1
        if event.type in ("response.done", "response.completed", "error") or got == pieces:
            return text, event
    return text, None


with client.realtime.connect(model="gpt-realtime-2.1") as connection:
    check("greeting", connection.recv().type, "session.created")
    connection.session.update(session={"type": "realtime", "output_modalities": ["text"]})
    check("acknowledgement", connection.recv().type, "session.updated")
    # Two responses in one session: each is a call of its own.
    for _ in range(2):
        say(connection, PROMPT)
        text, last = hear(connection)
        check("realtime text", text, f"You said: {PROMPT}")
        usage = last.response.usage
        cached = usage.input_token_details.cached_tokens
        saw(input=usage.input_tokens - cached, output=usage.output_tokens, cache_read=cached)

with client.realtime.connect(model=MISSING) as connection:
    error = connection.recv()
    check("an unknown model", (error.type, error.error.code), ("error", "model_not_found"))

sockets = hasattr(client.responses, "connect")
if sockets:
    with client.responses.connect() as connection:
        connection.response.create(model="gpt-5.4-mini", input=PROMPT)
        text, last = hear(connection)
        check("responses text", text, f"You said: {PROMPT}")
        usage = last.response.usage
        read, write = usage.input_tokens_details.cached_tokens, usage.input_tokens_details.cache_write_tokens
        saw(
            input=usage.input_tokens - read - write,
            output=usage.output_tokens,
            cache_read=read,
            cache_write=write,
            reasoning=usage.output_tokens_details.reasoning_tokens,
        )

whole("openai", openai.__version__)

with client.realtime.connect(model="gpt-realtime-2.1") as connection:
    connection.recv()
    say(connection, HOLD)
    hear(connection, HELD)
left(cache_read=2)
if sockets:
    with client.responses.connect() as connection:
        connection.response.create(model="gpt-5.4-mini", input=HOLD)
        hear(connection, HELD)
    left(cache_read=4, cache_write=2)

done()
