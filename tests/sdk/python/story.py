"""What the SDK stories share: reading the environment, checking, counting, and the JSON lines at the end of each part.

A story is an app developer's program: it knows a base URL and a placeholder, nothing of Tacit. It has two parts. In the
first, calls run to their end or are refused at once, so all counts are exact. In the second, the app leaves streams
early, or streams fail; nobody tells the app what those cost, so it counts the pieces that it got.
"""

import faulthandler
import json
import os
import sys

PROMPT = "Say the words alpha beta gamma"
# The test provider stops after four pieces and waits until the client leaves.
HOLD = "Say HOLD-STREAM alpha beta gamma"
HELD = 4
# The test provider fails, in each API's own way, after two pieces.
FAIL = "Say FAIL-STREAM alpha beta gamma"
FAILED = 2
# No provider has it.
MISSING = "no-such-model"

KINDS = ("input", "output", "cache_read", "cache_write", "reasoning")

# A story that hangs shows where, and ends.
faulthandler.dump_traceback_later(150, exit=True)


def words(text):
    return len(text.split())


class Tally:
    def __init__(self):
        self.calls = 0
        self.tokens = dict.fromkeys(KINDS, 0)

    def add(self, **kinds):
        self.calls += 1
        for kind, count in kinds.items():
            self.tokens[kind] += int(count or 0)

    def shown(self):
        return {"calls": self.calls, "tokens": self.tokens}


_complete, _cancelled, _failed = Tally(), Tally(), Tally()
_refused = 0


def saw(**kinds):
    """A call that ended well, with the tokens that the SDK was told; output includes reasoning, input excludes caches."""
    _complete.add(**kinds)


def left(prompt=HOLD, pieces=HELD, **caches):
    """A stream that the app left after this many pieces."""
    _cancelled.add(input=words(prompt), output=pieces, **caches)


def broke(prompt=FAIL, pieces=FAILED, **caches):
    """A stream that failed after this many pieces."""
    _failed.add(input=words(prompt), output=pieces, **caches)


def refused(call, *kinds):
    """The call must fail with one of these exceptions of the SDK, and with the status that the test provider gave."""
    global _refused
    try:
        call()
    except kinds as error:
        _refused += 1
        return error
    sys.exit(f"a call that should be refused was answered; expected {kinds}")


def fields(value):
    """A model of the SDK, or what it left as it came, as a dictionary."""
    return value if isinstance(value, dict) else value.model_dump() if value else {}


def chat_usage(usage):
    """OpenAI's counts of a chat: the prompt contains what came from the cache."""
    usage = fields(usage)
    details, out = usage.get("prompt_tokens_details") or {}, usage.get("completion_tokens_details") or {}
    read, write = details.get("cached_tokens") or 0, details.get("cache_write_tokens") or 0
    saw(
        input=usage["prompt_tokens"] - read - write,
        output=usage["completion_tokens"],
        cache_read=read,
        cache_write=write,
        reasoning=out.get("reasoning_tokens"),
    )


def placeholder():
    """The key that the app holds. The agent never lets it out; direct runs put the real one here."""
    return os.environ.get("STORY_KEY", "sk-placeholder-not-a-key")


def base_url(name):
    value = os.environ.get(name)
    if not value:
        sys.exit(f"{name} is not set: it must name the agent's (or the test provider's) base URL")
    return value


def check(what, got, want):
    if got != want:
        sys.exit(f"{what}: got {got!r}, expected {want!r}")


def _line(**fields):
    json.dump(fields, sys.stdout)
    print(flush=True)


def whole(sdk, version):
    """Ends the first part, and waits until whoever runs the story has compared the counts."""
    _line(part="whole", sdk=sdk, version=version, complete=_complete.shown(), refused=_refused)
    sys.stdin.readline()


def done():
    """Ends the second part."""
    _line(part="broken", cancelled=_cancelled.shown(), failed=_failed.shown())
