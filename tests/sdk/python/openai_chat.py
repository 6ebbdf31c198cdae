"""Chats as the OpenAI SDK and its many relatives have them: whole, streamed, refused, left and failed."""

from story import FAIL, HELD, HOLD, MISSING, PROMPT, broke, chat_usage, check, fields, left, refused, saw, words


def ask(prompt):
    return [{"role": "user", "content": prompt}]


def chat(client, model):
    reply = client.chat.completions.create(model=model, messages=ask(PROMPT))
    check("chat content", reply.choices[0].message.content, f"You said: {PROMPT}")
    check("chat finish", reply.choices[0].finish_reason, "stop")
    chat_usage(reply.usage)


def streamed(client, model, **options):
    """A stream whose usage is asked for, or comes unasked."""
    text, chunks, usage = "", 0, None
    for chunk in client.chat.completions.create(model=model, messages=ask(PROMPT), stream=True, **options):
        chunks += 1
        usage = chunk.usage or usage
        if chunk.choices:
            text += chunk.choices[0].delta.content or ""
    check("streamed chat content", text, f"You said: {PROMPT}")
    check("streamed in several chunks", chunks > 3, True)
    chat_usage(usage)


def unasked(client, model, **extra):
    """Without include_usage no chunk may carry usage or an empty list of choices: apps index choices[0]."""
    for chunk in client.chat.completions.create(model=model, messages=ask(PROMPT), stream=True):
        check("a chunk has a choice", len(chunk.choices), 1)
        check("no usage unless asked for", chunk.usage, None)
    # The app is told nothing here, so it counts words, as this provider does.
    more = extra.get("reasoning", 0)
    saw(input=words(PROMPT), output=words(f"You said: {PROMPT}") + more, **extra)


def missing(client, *kinds, status=404):
    error = refused(lambda: client.chat.completions.create(model=MISSING, messages=ask(PROMPT)), *kinds)
    check("status of an unknown model", error.status_code, status)


def abandoned(client, model, **caches):
    stream = client.chat.completions.create(model=model, messages=ask(HOLD), stream=True)
    got = 0
    for chunk in stream:
        got += bool(chunk.choices and chunk.choices[0].delta.content)
        if got == HELD:
            break
    (stream.close if hasattr(stream, "close") else stream.response.close)()
    left(**caches)


def failing(client, model, *kinds, **caches):
    got = 0
    try:
        for chunk in client.chat.completions.create(model=model, messages=ask(FAIL), stream=True):
            got += bool(chunk.choices and chunk.choices[0].delta.content)
    except kinds:
        broke(pieces=got, **caches)
        return
    check("the failing stream raised", False, True)


def swallowed(client, model, **caches):
    """Some SDKs raise nothing: the error is a chunk without choices, and the stream just ends."""
    got = 0
    for chunk in client.chat.completions.create(model=model, messages=ask(FAIL), stream=True):
        got += bool(chunk.choices and chunk.choices[0].delta.content)
    broke(pieces=got, **caches)


def embeddings(client, model, **options):
    reply = client.embeddings.create(model=model, input=["one", "two three"], **options)
    check("embedding count", len(reply.data), 2)
    check("embedding values", [round(v, 3) for v in reply.data[1].embedding], [0.5, -0.25, 1.0])
    saw(input=fields(reply.usage)["prompt_tokens"])
