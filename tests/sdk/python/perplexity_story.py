"""Perplexity: chat, embeddings; refused, left and failed."""

import openai_chat as chats
import perplexity
from story import base_url, check, done, placeholder, saw, whole

base_url("PERPLEXITY_BASE_URL")
client = perplexity.Perplexity(api_key=placeholder(), max_retries=0, timeout=30)
MODEL = "sonar"

chats.chat(client, MODEL)
chats.streamed(client, MODEL)
embedded = client.embeddings.create(model="pplx-embed-v1-0.6b", input=["one", "two three"])
check("embedding", embedded.data[1].embedding, "QABA")
saw(input=embedded.usage.prompt_tokens)
chats.missing(client, perplexity.BadRequestError, status=400)

whole("perplexityai", perplexity.__version__)

chats.abandoned(client, MODEL)
chats.swallowed(client, MODEL)

done()
