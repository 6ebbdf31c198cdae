"""Gemini: generate, streamed generate, embedding, models; refused, left and failed."""

import gemini_chat as chats
from google import genai
from google.genai import types
from story import PROMPT, base_url, check, done, placeholder, whole

base_url("GOOGLE_GEMINI_BASE_URL")
client = genai.Client(api_key=placeholder(), http_options=types.HttpOptions(timeout=30_000))

chats.generated(client)
chats.streamed(client)

embedded = client.models.embed_content(model="gemini-embedding-001", contents=PROMPT)
check("embedding", [round(v, 3) for v in embedded.embeddings[0].values], [0.5, -0.25, 1.0])

models = [model.name for model in client.models.list(config={"page_size": 5})]
check("models", models, ["models/gemini-3.6-flash"])

chats.missing(client)

whole("google-genai", genai.__version__)

chats.abandoned(client)
chats.failing(client)

done()
