// What the SDK stories share. A story is an app developer's program: it knows a base URL and a
// placeholder, nothing of Tacit.
import { readFileSync } from "node:fs";
import process from "node:process";

export const PROMPT = "Say the words alpha beta gamma";

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

/** The version that is really installed, from the tree that the story runs in. */
export function done(sdk, results) {
  const tree = new URL(`./node_modules/${sdk}/package.json`, `file://${process.cwd()}/`);
  const { version } = JSON.parse(readFileSync(tree, "utf8"));
  console.log(JSON.stringify({ sdk, version, results }));
}
