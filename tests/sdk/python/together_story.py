"""Together: chat, embeddings; refused, left and failed."""

import openai_chat as chats
import together
from story import base_url, done, placeholder, whole

base_url("TOGETHER_BASE_URL")
client = together.Together(api_key=placeholder(), max_retries=0, timeout=30)
MODEL = "meta-llama/Llama-4-Maverick-17B-128E-Instruct-FP8"

chats.chat(client, MODEL)
chats.streamed(client, MODEL, extra_body={"stream_options": {"include_usage": True}})
chats.unasked(client, MODEL, cache_read=1)
chats.embeddings(client, "BAAI/bge-base-en-v1.5")
chats.missing(client, together.NotFoundError)

whole("together", together.__version__)

chats.abandoned(client, MODEL, cache_read=1)
chats.failing(client, MODEL, together.APIError, cache_read=1)

done()
