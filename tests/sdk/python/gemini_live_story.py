"""Gemini Live: a session over a WebSocket; whole, refused, left. This SDK insists on wss://."""

import asyncio

from google import genai
from google.genai import errors, types
from story import HELD, HOLD, MISSING, PROMPT, base_url, check, done, left, placeholder, saw, whole

base_url("GOOGLE_GEMINI_BASE_URL")
client = genai.Client(api_key=placeholder())
MODEL = "gemini-3.1-flash-live"
CONFIG = {"response_modalities": ["TEXT"]}


async def say(session, prompt):
    content = types.Content(role="user", parts=[types.Part(text=prompt)])
    await session.send_client_content(turns=content, turn_complete=True)


async def first_part():
    async with client.aio.live.connect(model=MODEL, config=CONFIG) as session:
        # Two turns in one session: each is a call of its own.
        for _ in range(2):
            await say(session, PROMPT)
            text, usage = "", None
            async for message in session.receive():
                text += message.text or ""
                usage = message.usage_metadata or usage
            check("live text", text, f"You said: {PROMPT}")
            cached, thoughts = usage.cached_content_token_count or 0, usage.thoughts_token_count or 0
            saw(
                input=usage.prompt_token_count - cached,
                output=usage.response_token_count + thoughts,
                cache_read=cached,
                reasoning=thoughts,
            )
    try:
        async with client.aio.live.connect(model=MISSING, config=CONFIG) as session:
            await session._receive()
        check("an unknown model was refused", False, True)
    except errors.APIError as error:
        check("close code of an unknown model", error.code, 1008)


async def second_part():
    async with client.aio.live.connect(model=MODEL, config=CONFIG) as session:
        await say(session, HOLD)
        got = 0
        async for message in session.receive():
            got += bool(message.text)
            if got == HELD:
                break
    left(cache_read=2)


asyncio.run(first_part())
whole("google-genai", genai.__version__)
asyncio.run(second_part())
done()
