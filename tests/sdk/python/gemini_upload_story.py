"""Gemini: a resumable upload, and a question about what was uploaded."""

import hashlib
import io

import gemini_chat as chats
from google import genai
from google.genai import types
from story import base_url, check, done, placeholder, whole

base_url("GOOGLE_GEMINI_BASE_URL")
client = genai.Client(api_key=placeholder(), http_options=types.HttpOptions(timeout=30_000))

# The answer to the first request names an absolute address, to which the SDK sends the content.
payload = b"alpha beta gamma\n" * 20_000
upload = client.files.upload(file=io.BytesIO(payload), config={"mime_type": "text/plain"})
check("uploaded size", upload.size_bytes, len(payload))
check("uploaded content", upload.sha256_hash, hashlib.sha256(payload).hexdigest())

again = client.files.get(name=upload.name)
check("the file is known", again.name, "files/test-file")
chats.generated(client)

whole("google-genai", genai.__version__)
done()
