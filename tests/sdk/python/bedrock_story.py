"""Bedrock with a bearer token: Converse through boto3 (which wants https for it), Invoke through Anthropic's SDK."""

import json

import anthropic
import anthropic_chat as chats
import boto3
from botocore.config import Config
from botocore.exceptions import ClientError, EventStreamError
from story import FAIL, HELD, HOLD, MISSING, PROMPT, base_url, broke, check, done, left, placeholder, refused, saw, whole

endpoint = base_url("AWS_ENDPOINT_URL_BEDROCK_RUNTIME")
runtime = boto3.client("bedrock-runtime", config=Config(retries={"total_max_attempts": 1}, read_timeout=30))
claude = anthropic.AnthropicBedrock(
    api_key=placeholder(), base_url=endpoint, aws_region="us-east-1", max_retries=0, timeout=30
)
MODEL = "us.amazon.nova-2-lite-v1:0"
CLAUDE = "anthropic.claude-haiku-4-5-20251001-v1:0"


def ask(model, prompt):
    return {"modelId": model, "messages": [{"role": "user", "content": [{"text": prompt}]}]}


def seen(usage):
    saw(
        input=usage["inputTokens"],
        output=usage["outputTokens"],
        cache_read=usage["cacheReadInputTokens"],
        cache_write=usage["cacheWriteInputTokens"],
    )


reply = runtime.converse(**ask(MODEL, PROMPT))
check("converse text", reply["output"]["message"]["content"][0]["text"], f"You said: {PROMPT}")
seen(reply["usage"])

text, pieces = "", 0
for event in runtime.converse_stream(**ask(MODEL, PROMPT))["stream"]:
    if "contentBlockDelta" in event:
        text += event["contentBlockDelta"]["delta"]["text"]
        pieces += 1
    if "metadata" in event:
        seen(event["metadata"]["usage"])
check("streamed converse text", text, f"You said: {PROMPT}")
check("streamed in several pieces", pieces > 3, True)

reply = runtime.invoke_model(modelId="amazon.titan-embed-text-v2:0", body=json.dumps({"inputText": PROMPT}))
embedded = json.loads(reply["body"].read())
check("embedding", embedded["embedding"], [0.5, -0.25, 1.0])
saw(input=embedded["inputTextTokenCount"])

error = refused(lambda: runtime.converse(**ask(MISSING, PROMPT)), ClientError)
check("code of an unknown model", error.response["Error"]["Code"], "ValidationException")

chats.message(claude, CLAUDE)
chats.streamed(claude, CLAUDE)
chats.missing(claude, anthropic.BadRequestError, status=400)

whole("boto3", boto3.__version__)

stream, got = runtime.converse_stream(**ask(MODEL, HOLD))["stream"], 0
for event in stream:
    got += "contentBlockDelta" in event
    if got == HELD:
        break
stream.close()
left(cache_read=4, cache_write=1)

got = 0
try:
    for event in runtime.converse_stream(**ask(MODEL, FAIL))["stream"]:
        got += "contentBlockDelta" in event
    check("the failing stream raised", False, True)
except EventStreamError:
    broke(pieces=got, cache_read=4, cache_write=1)
chats.abandoned(claude, CLAUDE)

done()
