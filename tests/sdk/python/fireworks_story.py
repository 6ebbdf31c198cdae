"""Fireworks: chat, embeddings; refused, left and failed. With another base URL this SDK forgets half of the path."""

import fireworks
import openai_chat as chats
from story import base_url, done, placeholder, whole

base_url("FIREWORKS_BASE_URL")
client = fireworks.Fireworks(api_key=placeholder(), account_id="test", max_retries=0, timeout=30)
MODEL = "accounts/fireworks/models/kimi-k2"

chats.chat(client, MODEL)
chats.streamed(client, MODEL)
chats.missing(client, fireworks.NotFoundError)

whole("fireworks-ai", fireworks.__version__)

chats.abandoned(client, MODEL, cache_read=2)
chats.swallowed(client, MODEL, cache_read=2)

done()
