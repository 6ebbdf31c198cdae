"""What the SDK stories share: reading the environment, checking, and the one JSON line at the end.

A story is an app developer's program: it knows a base URL and a placeholder, nothing of Tacit.
"""

import json
import os
import sys

PROMPT = "Say the words alpha beta gamma"


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


def done(sdk, version, results):
    json.dump({"sdk": sdk, "version": version, "results": results}, sys.stdout)
    print()
