"""Groq: chat, embeddings, transcription, models; refused, left and failed."""

import io

import groq
import openai_chat as chats
from story import PROMPT, base_url, check, done, placeholder, saw, whole, words

base_url("GROQ_BASE_URL")
client = groq.Groq(api_key=placeholder(), max_retries=0, timeout=30)
MODEL = "openai/gpt-oss-20b"

chats.chat(client, MODEL)
# Groq says the usage in a field of its own, in the last chunk, whether it was asked for or not.
text, usage = "", None
for chunk in client.chat.completions.create(model=MODEL, messages=chats.ask(PROMPT), stream=True):
    text += chunk.choices[0].delta.content or ""
    usage = chunk.x_groq.usage if chunk.x_groq else usage
check("streamed chat content", text, f"You said: {PROMPT}")
chats.chat_usage(usage)

chats.embeddings(client, "embed", encoding_format="float")

speech = b"RIFF" + b"alpha beta gamma"
heard = client.audio.transcriptions.create(model="whisper-large-v3-turbo", file=("speech.wav", io.BytesIO(speech)))
check("transcription", heard.text, "alpha beta gamma")
saw(input=len("alpha beta gamma"), output=words(heard.text))

check("models", len(client.models.list().data), 2)
chats.missing(client, groq.NotFoundError)

whole("groq", groq.__version__)

chats.abandoned(client, MODEL, cache_read=1)
chats.failing(client, MODEL, groq.APIError, cache_read=1)

done()
