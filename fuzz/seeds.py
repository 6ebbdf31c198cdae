#!/usr/bin/env python3
"""Writes the seeds of the fuzz targets from the vectors of custody: corpus/TARGET/seed-N."""

import base64
import hashlib
import json
import pathlib

HERE = pathlib.Path(__file__).resolve().parent
VECTORS = HERE.parent / "crates" / "custody" / "vectors"


def armor(sealed: bytes) -> bytes:
    digits = base64.b64encode(sealed).decode()
    lines = [digits[at : at + 64] for at in range(0, len(digits), 64)]
    begin, end = "-----BEGIN TACIT SEALED KEY-----", "-----END TACIT SEALED KEY-----"
    return "\n".join([begin, *lines, end, ""]).encode()


def prefixed(*parts: bytes) -> bytes:
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


def record(kind: int, name: bytes, revision: int, body: bytes) -> bytes:
    return b"TCRC\x01" + bytes([kind]) + prefixed(name) + revision.to_bytes(8, "big") + prefixed(body)


def frame(ident: int, verb: int, fields: bytes) -> bytes:
    body = ident.to_bytes(8, "big") + bytes([verb]) + fields
    return prefixed(body)


def form(*fields: tuple[str, str]) -> bytes:
    parts = [f"--XX\r\nContent-Disposition: form-data; {head}\r\n\r\n{content}\r\n" for head, content in fields]
    return bytes([1]) + ("".join(parts) + "--XX--\r\n").encode()


# The first byte chooses the endpoint, from 128 on as a form.
MODEL_BODIES = [
    (0, b'{"model":"m","stream":true,"messages":[]}'),
    (0, b'{"model":"m","stream":true,"stream_options":{"include_usage":false},"tools":[{"type":"mcp"}]}'),
    (3, b'{"model":"a","models":["b"],"preset":"p","plugins":[{"id":"x","model":"c"}]}'),
    (4, b'{"requests":[{"custom_id":"1","params":{"model":"a","mcp_servers":[{}]}}]}'),
    (5, b'{"generate_content_request":{"model":"models/g","tools":[{"mcpServers":[{}]}]}}'),
    (6, b'{"model":"projects/p/locations/l/publishers/google/models/g"}'),
    (7, b'{"type":"response.create","model":"m","response":{"tools":[]}}'),
    (129, form(('name="file"; filename="a.wav"', "RIFF"), ('name="model"', "whisper-1"))),
    (129, form(('name="model"', "whisper-1"), ('name="stream"', "true"))),
    (130, form(('name="purpose"', "batch"), ('name="file"; filename="b.jsonl"', '{"body":{"model":"m"}}\n{"body":{}}'))),
]


BACKUP_PARTS = [b"store", b"trust", b"audit/audit-2026-01-01.jsonl"]


def main() -> None:
    seeds: dict[str, set[bytes]] = {}

    def add(target: str, *parts: bytes) -> None:
        seeds.setdefault(target, set()).update(parts)

    for path in sorted(VECTORS.glob("*.json")):
        vector = json.loads(path.read_text())
        part = {name: bytes.fromhex(vector[name]) for name in ("header", "envelope", "manifest", "sealed_key")}
        for name in ("header", "envelope", "manifest"):
            add(name, part[name])
        add("sealed_key", part["sealed_key"], armor(part["sealed_key"]))
        add("trust_file", vector["trust_file"].encode())
        add("receipt", (json.dumps(vector["receipt"], indent=2) + "\n").encode())
        add("statement", bytes.fromhex(vector["statement"]["encoded"]))
        add("point_and_rsa", bytes.fromhex(vector["session"]["p256_public"]))
        for row in vector["rows"][:1]:
            add("row_identity", bytes.fromhex(row["identity"]))
        for custodian in vector["custodians"][:1]:
            descriptor = bytes.fromhex(custodian["descriptor"])
            signature = bytes.fromhex(custodian["descriptor_signature"])
            add("descriptor", descriptor, b"TCSD\x01" + prefixed(descriptor) + signature)
            at = descriptor.find(bytes.fromhex("30820122300d06092a864886f70d0101010500"))
            if at >= 0:
                key = descriptor[at : at + 294]
                add("point_and_rsa", key, key[33:289] + key[291:])
    for choice, body in MODEL_BODIES:
        add("model_finder", bytes([choice]) + body)
    add("store_record", record(1, b"openai-prod", 7, b"{}"), record(2, b"openai-prod/3", 7, b"body"))
    line = bytes([1]) + prefixed(b"openai-prod") + (7).to_bytes(8, "big") + bytes(32)
    add("store_record", b"TCIN\x01" + (9).to_bytes(8, "big") + (1).to_bytes(4, "big") + line)
    part = b"TCSK\x01" + (1).to_bytes(4, "big") + bytes([2, 3]) + bytes(32 * 3 + 12 + 16 + 32)
    row = b"TCSR\x01" + (1).to_bytes(4, "big") + bytes(28) + prefixed(b"content")
    macs = bytes([1]) + prefixed(b"a") + bytes(32)
    add("sealed_store", part, row, b"TCVR\x01" + prefixed(b"key", b"openai-prod", b"{}") + macs)
    add("sealed_store", b"TCVI\x01" + prefixed(b"x") + macs, b"TCVN\x01" + prefixed(b"openai-prod") + bytes(8))
    tokens = b"".join(prefixed(name, b"serial", b"label") + bytes(32) for name in (b"a", b"b"))
    named = b"".join(prefixed(name) + (0).to_bytes(8, "big") + hashlib.sha256(b"").digest() for name in BACKUP_PARTS)
    manifest = b"TCBM\x01" + prefixed(b"0.1.0") + bytes(16) + bytes(32) + bytes(4) + bytes(8) + bytes(32) + bytes([2, 2]) + tokens
    manifest += len(BACKUP_PARTS).to_bytes(4, "big") + named
    add("backup", b"TCBK\x01" + prefixed(manifest) + bytes([1]) + bytes(96))
    acceptance = b"TCRA\x01" + bytes(32) + bytes(8) + bytes([1]) + bytes(32 + 8 + 32) + bytes(8)
    add("backup", acceptance, b"TCRS\x01" + prefixed(acceptance) + bytes(96))
    add("names", b"openai-prod", b"https://api.openai.com", b"https://[::1]:8443/", b"http://127.0.0.1:9000", b"*", b"ab" * 32)
    add("combine", bytes(range(256)), bytes(64))
    for layout in sorted(pathlib.Path(__file__).parent.glob("../crates/attest/tests/cgroups/*.txt")):
        text = "".join(f"{line}\n" for line in layout.read_text().splitlines() if not line.startswith("#"))
        add("cgroup", text.encode())
    add("hsm_wire", frame(1, 1, (1).to_bytes(4, "big")), *(frame(7, verb, bytes(64)) for verb in range(1, 22)))
    add(
        "agent_head",
        b"POST /openai/v1/chat/completions?stream=true HTTP/1.1\r\nHost: 127.0.0.1:4100\r\nAuthorization: Bearer placeholder\r\n"
        b"Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}",
        b"POST /anthropic/v1/messages HTTP/1.1\r\nhost: localhost\r\nx-api-key: placeholder\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"GET /gemini/v1beta/models?key=placeholder&alt=sse HTTP/1.1\r\nHost: [::1]:4100\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n",
    )
    for target, parts in seeds.items():
        folder = HERE / "corpus" / target
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob("seed-*"):
            old.unlink()
        for at, content in enumerate(sorted(parts)):
            (folder / f"seed-{at:02}").write_bytes(content)


if __name__ == "__main__":
    main()
