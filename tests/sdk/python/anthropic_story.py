"""Anthropic: messages, streamed messages, models; refused, left and failed."""

import anthropic
import anthropic_chat as chats
from story import base_url, check, done, placeholder, whole

base_url("ANTHROPIC_BASE_URL")
client = anthropic.Anthropic(api_key=placeholder(), max_retries=0, timeout=30)
MODEL = "claude-haiku-4-5"

chats.message(client, MODEL)
chats.streamed(client, MODEL)

models = [model.id for model in client.models.list(limit=5)]
check("models", models, ["claude-haiku-4-5"])

chats.missing(client, anthropic.NotFoundError)

whole("anthropic", anthropic.__version__)

chats.abandoned(client, MODEL)
chats.failing(client, MODEL, anthropic.APIStatusError)

done()
