"""Messages as Anthropic's SDK has them, whichever platform serves them."""

from story import FAIL, HELD, HOLD, MISSING, PROMPT, broke, check, left, refused, saw

# What this test provider finds in its cache, and puts there.
CACHES = {"cache_read": 7, "cache_write": 3}


def ask(model, prompt):
    return {"model": model, "max_tokens": 64, "messages": [{"role": "user", "content": prompt}]}


def seen(usage):
    saw(
        input=usage.input_tokens,
        output=usage.output_tokens,
        cache_read=usage.cache_read_input_tokens,
        cache_write=usage.cache_creation_input_tokens,
    )


def message(client, model):
    reply = client.messages.create(**ask(model, PROMPT))
    check("message text", reply.content[0].text, f"You said: {PROMPT}")
    check("stop reason", reply.stop_reason, "end_turn")
    seen(reply.usage)


def streamed(client, model):
    text, pieces = "", 0
    with client.messages.stream(**ask(model, PROMPT)) as stream:
        for piece in stream.text_stream:
            text += piece
            pieces += 1
        final = stream.get_final_message()
    check("streamed text", text, f"You said: {PROMPT}")
    check("streamed in several pieces", pieces > 3, True)
    check("accumulated text", final.content[0].text, text)
    seen(final.usage)


def missing(client, kind, status=404):
    error = refused(lambda: client.messages.create(**ask(MISSING, PROMPT)), kind)
    check("status of an unknown model", error.status_code, status)


def abandoned(client, model):
    got = 0
    with client.messages.stream(**ask(model, HOLD)) as stream:
        for _ in stream.text_stream:
            got += 1
            if got == HELD:
                break
    left(**CACHES)


def failing(client, model, kind):
    got = 0
    try:
        with client.messages.stream(**ask(model, FAIL)) as stream:
            for _ in stream.text_stream:
                got += 1
    except kind:
        broke(pieces=got, **CACHES)
        return
    check("the failing stream raised", False, True)
