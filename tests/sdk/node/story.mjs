// What the SDK stories share. A story is an app developer's program: it knows a base URL and a placeholder, nothing of
// Tacit. It has two parts. In the first, calls run to their end or are refused at once, so all counts are exact. In the
// second, the app leaves streams early, or streams fail; nobody tells the app what those cost, so it counts pieces.
import { readFileSync } from "node:fs";
import process from "node:process";

export const PROMPT = "Say the words alpha beta gamma";
// The test provider stops after four pieces and waits until the client leaves.
export const HOLD = "Say HOLD-STREAM alpha beta gamma";
export const HELD = 4;
// The test provider fails, in each API's own way, after two pieces.
export const FAIL = "Say FAIL-STREAM alpha beta gamma";
export const FAILED = 2;
// No provider has it.
export const MISSING = "no-such-model";

export const words = (text) => text.trim().split(/\s+/).length;

// A story that hangs says so, and ends.
setTimeout(() => {
  console.error("the story hangs");
  process.exit(3);
}, 150_000).unref();

class Tally {
  calls = 0;
  tokens = { input: 0, output: 0, cache_read: 0, cache_write: 0, reasoning: 0 };

  add(kinds) {
    this.calls += 1;
    for (const [kind, count] of Object.entries(kinds)) this.tokens[kind] += count ?? 0;
  }
}

const [complete, cancelled, failed] = [new Tally(), new Tally(), new Tally()];
let refusals = 0;

/** A call that ended well, with the tokens that the SDK was told; output includes reasoning, input excludes caches. */
export const saw = (kinds) => complete.add(kinds);

/** A stream that the app left. */
export const left = (caches = {}) => cancelled.add({ input: words(HOLD), output: HELD, ...caches });

/** A stream that failed. */
export const broke = (caches = {}, pieces = FAILED) => failed.add({ input: words(FAIL), output: pieces, ...caches });

/** The call must fail with this exception of the SDK and this status. */
export async function refused(call, kind, status) {
  const error = await call().then(
    () => null,
    (error) => error,
  );
  check(`refused with ${kind.name} (got ${error?.constructor?.name})`, error instanceof kind, true);
  check("status of a refused call", error.status, status);
  refusals += 1;
}

/** The stream must raise this after some pieces. */
export async function raises(kind, stream) {
  try {
    await stream();
  } catch (error) {
    check(`failed with ${kind.name} (got ${error})`, error instanceof kind, true);
    return;
  }
  throw new Error("the failing stream raised nothing");
}

/** OpenAI's counts of a chat: the prompt contains what came from the cache. */
export function chatUsage(usage) {
  const [read, write] = [
    usage.prompt_tokens_details?.cached_tokens ?? 0,
    usage.prompt_tokens_details?.cache_write_tokens ?? 0,
  ];
  saw({
    input: usage.prompt_tokens - read - write,
    output: usage.completion_tokens,
    cache_read: read,
    cache_write: write,
    reasoning: usage.completion_tokens_details?.reasoning_tokens,
  });
}

/** OpenAI's counts of a response. */
export function responseUsage(usage) {
  const { cached_tokens: read, cache_write_tokens: write = 0 } = usage.input_tokens_details;
  saw({
    input: usage.input_tokens - read - write,
    output: usage.output_tokens,
    cache_read: read,
    cache_write: write,
    reasoning: usage.output_tokens_details.reasoning_tokens,
  });
}

/** The key that the app holds. The agent never lets it out; direct runs put the real one here. */
export const placeholder = () => process.env.STORY_KEY ?? "sk-placeholder-not-a-key";

export function baseUrl(name) {
  const value = process.env[name];
  if (!value) throw new Error(`${name} is not set: it must name the agent's (or the test provider's) base URL`);
  return value;
}

export function check(what, got, want) {
  const [a, b] = [JSON.stringify(got), JSON.stringify(want)];
  if (a !== b) throw new Error(`${what}: got ${a}, expected ${b}`);
}

/** Ends the first part, and waits until whoever runs the story has compared the counts. */
export async function whole(sdk) {
  // The version that is really installed, from the tree that the story runs in.
  const tree = new URL(`./node_modules/${sdk}/package.json`, `file://${process.cwd()}/`);
  const { version } = JSON.parse(readFileSync(tree, "utf8"));
  console.log(JSON.stringify({ part: "whole", sdk, version, complete, refused: refusals }));
  await new Promise((resolve) => {
    process.stdin.once("data", resolve);
    process.stdin.once("end", resolve);
  });
  process.stdin.destroy();
}

/** Ends the second part. */
export const done = () => console.log(JSON.stringify({ part: "broken", cancelled, failed }));
