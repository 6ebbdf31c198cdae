"""Azure through OpenAI's SDK: deployments by path, and the newer API that needs no version."""

import openai
import openai_chat as chats
from story import base_url, check, done, placeholder, whole

endpoint = base_url("AZURE_OPENAI_ENDPOINT")
classic = openai.AzureOpenAI(api_key=placeholder(), api_version="2025-04-01-preview", max_retries=0, timeout=30)
newer = openai.OpenAI(base_url=f"{endpoint}/openai/v1/", api_key=placeholder(), max_retries=0, timeout=30)
CACHES = {"cache_read": 2}

for client in (classic, newer):
    chats.chat(client, "chat-prod")
    chats.streamed(client, "chat-prod", stream_options={"include_usage": True})
    chats.unasked(client, "chat-prod", **CACHES)
    chats.embeddings(client, "embed-prod")
    chats.missing(client, openai.NotFoundError)
named = classic.chat.completions.create(model="chat-prod", messages=chats.ask("one"))
check("the answer names the model behind the deployment", named.model, "gpt-5.4-mini-2026-03-17")
chats.chat_usage(named.usage)

whole("openai", openai.__version__)

for client in (classic, newer):
    chats.abandoned(client, "chat-prod", **CACHES)
    chats.failing(client, "chat-prod", openai.APIError, **CACHES)

done()
