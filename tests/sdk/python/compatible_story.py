"""A provider that speaks like OpenAI, through OpenAI's SDK: chat, embeddings, models; refused, left and failed."""

import os

import openai
import openai_chat as chats
from story import base_url, check, done, placeholder, whole

client = openai.OpenAI(base_url=base_url("COMPATIBLE_BASE_URL"), api_key=placeholder(), max_retries=0, timeout=30)
MODEL = "gpt-5.4-mini"
# What the provider at hand finds in its cache, what it calls an unknown model, and whether streams must be asked for usage.
PROVIDER = os.environ["STORY_PROVIDER"]
CACHES = {"deepseek": {"cache_read": 5}, "xai": {"cache_read": 3}, "openrouter": {"cache_read": 2, "cache_write": 1}}
STATUS = {"deepseek": 400, "xai": 404, "openrouter": 400}[PROVIDER]
REFUSED = {400: openai.BadRequestError, 404: openai.NotFoundError}[STATUS]

chats.chat(client, MODEL)
chats.streamed(client, MODEL, stream_options={"include_usage": True})
if PROVIDER == "deepseek":
    chats.unasked(client, MODEL, reasoning=2, **CACHES[PROVIDER])
else:
    # These say it unasked.
    chats.streamed(client, MODEL)
if PROVIDER != "deepseek":  # has none
    chats.embeddings(client, "text-embedding-3-small")
check("models", len([model.id for model in client.models.list()]), 2)
chats.missing(client, REFUSED, status=STATUS)

whole("openai", openai.__version__)

chats.abandoned(client, MODEL, **CACHES[PROVIDER])
chats.failing(client, MODEL, openai.APIError, **CACHES[PROVIDER])

done()
