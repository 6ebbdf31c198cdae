"""Anthropic: messages, streamed messages, models."""

import anthropic
from story import PROMPT, base_url, check, done, placeholder

base_url("ANTHROPIC_BASE_URL")
client = anthropic.Anthropic(api_key=placeholder(), max_retries=0, timeout=30)
results = {}

message = client.messages.create(
    model="claude-haiku-4-5", max_tokens=64, messages=[{"role": "user", "content": PROMPT}]
)
check("message text", message.content[0].text, f"You said: {PROMPT}")
check("stop reason", message.stop_reason, "end_turn")
results["messages"] = {"input": message.usage.input_tokens, "output": message.usage.output_tokens}

text, pieces = "", 0
with client.messages.stream(
    model="claude-haiku-4-5", max_tokens=64, messages=[{"role": "user", "content": PROMPT}]
) as stream:
    for piece in stream.text_stream:
        text += piece
        pieces += 1
    final = stream.get_final_message()
check("streamed text", text, f"You said: {PROMPT}")
check("streamed in several pieces", pieces > 3, True)
check("accumulated text", final.content[0].text, text)
results["messages_stream"] = {"pieces": pieces, "input": final.usage.input_tokens, "output": final.usage.output_tokens}

models = [model.id for model in client.models.list(limit=5)]
check("models", models, ["claude-haiku-4-5"])
results["models"] = models

done("anthropic", anthropic.__version__, results)
