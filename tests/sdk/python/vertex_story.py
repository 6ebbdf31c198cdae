"""Vertex with a bearer token: Google's models through Google's SDK, Anthropic's through theirs."""

import anthropic
import anthropic_chat as claude_chats
import gemini_chat as chats
from google import genai
from google.genai import types
from google.oauth2.credentials import Credentials
from story import base_url, done, placeholder, whole

root = base_url("GOOGLE_VERTEX_BASE_URL")
where = {"project": "test-project", "location": "us-central1"}
client = genai.Client(
    vertexai=True, credentials=Credentials(placeholder()), http_options=types.HttpOptions(timeout=30_000), **where
)
claude = anthropic.AnthropicVertex(
    access_token=placeholder(),
    base_url=f"{root}/v1",
    project_id=where["project"],
    region=where["location"],
    max_retries=0,
    timeout=30,
)
CLAUDE = "claude-haiku-4-5@20251001"

chats.generated(client)
chats.streamed(client)
chats.missing(client)
claude_chats.message(claude, CLAUDE)
claude_chats.streamed(claude, CLAUDE)
claude_chats.missing(claude, anthropic.NotFoundError)

whole("google-genai", genai.__version__)

chats.abandoned(client)
chats.failing(client)
claude_chats.abandoned(claude, CLAUDE)
claude_chats.failing(claude, CLAUDE, anthropic.APIStatusError)

done()
