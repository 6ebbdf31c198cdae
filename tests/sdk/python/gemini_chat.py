"""Generation as Google's SDK has it, at AI Studio and at Vertex."""

from google.genai import errors
from story import FAIL, HELD, HOLD, MISSING, PROMPT, broke, check, left, refused, saw

MODEL = "gemini-3.6-flash"


def seen(usage):
    """The prompt's count contains the cached tokens; the candidates' does not contain the thoughts."""
    cached, thoughts = usage.cached_content_token_count or 0, usage.thoughts_token_count or 0
    saw(
        input=usage.prompt_token_count - cached,
        output=usage.candidates_token_count + thoughts,
        cache_read=cached,
        reasoning=thoughts,
    )


def generated(client):
    reply = client.models.generate_content(model=MODEL, contents=PROMPT)
    check("generated text", reply.text, f"You said: {PROMPT}")
    seen(reply.usage_metadata)


def streamed(client):
    text, chunks, usage = "", 0, None
    for chunk in client.models.generate_content_stream(model=MODEL, contents=PROMPT):
        text += chunk.text or ""
        chunks += 1
        usage = chunk.usage_metadata or usage
    check("streamed text", text, f"You said: {PROMPT}")
    check("streamed in several chunks", chunks > 3, True)
    seen(usage)


def missing(client):
    error = refused(lambda: client.models.generate_content(model=MISSING, contents=PROMPT), errors.ClientError)
    check("status of an unknown model", error.code, 404)


def abandoned(client):
    stream = client.models.generate_content_stream(model=MODEL, contents=HOLD)
    for _ in range(HELD):
        next(stream)
    stream.close()
    left(cache_read=3)


def failing(client):
    got = 0
    try:
        for chunk in client.models.generate_content_stream(model=MODEL, contents=FAIL):
            got += bool(chunk.text)
    except errors.APIError:
        broke(pieces=got, cache_read=3)
        return
    check("the failing stream raised", False, True)
