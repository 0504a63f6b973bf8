"""Secrets over lines: whole, in a log, between lines of others, cut off at either end."""

from __future__ import annotations

import base64
import hashlib

import pytest

from agent.redaction.redactor import Redactor
from tests.redaction_corpus import Example, look_alikes

KIND = "PRIVATE " + "KEY"  # In one word no scanner of a code host would let this file pass.
NOISE = "host kernel: CIFS: VFS: \\\\files has not responded in 180 seconds"


def body_of(seed: int, lines: int = 25, width: int = 64) -> list[str]:
    noise = hashlib.shake_128(bytes([seed])).digest(lines * width * 3 // 4 - 11)
    text = base64.b64encode(noise).decode()
    return [text[place : place + width] for place in range(0, len(text), width)]


def frame(kind: str, body: list[str], dashes: str = "-----") -> list[str]:
    return [f"{dashes}BEGIN {kind}{dashes}", *body, f"{dashes}END {kind}{dashes}"]


def example(name: str, lines: list[str], secrets: list[str]) -> Example:
    redacted = [
        next(
            (line.replace(secret, f"[redacted:{name}]") for secret in secrets if secret in line),
            line,
        )
        for line in lines
    ]
    return Example(name, "\n".join(lines), secrets, "\n".join(redacted))


def key_example(kind: str, before: str = "", width: int = 64) -> Example:
    body = body_of(len(kind), width=width)
    lines = ["before", *frame(kind, body), "after"]
    return example("private-key", [before + line for line in lines], body)


def interleaved() -> Example:
    body = body_of(7)
    first, *inner, last = frame("RSA " + KIND, body)
    lines = [first, *(line for key in inner for line in (key, NOISE)), last, NOISE]
    return example("private-key", lines, body)


def encrypted() -> Example:
    body, head = body_of(8), ["Proc-Type: 4,ENCRYPTED", "DEK-Info: AES-128-CBC,0011AABB", ""]
    return example("private-key", frame("RSA " + KIND, [*head, *body]), body)


BODY = body_of(9)
BLOCK_EXAMPLES = [
    key_example("RSA " + KIND),
    key_example("OPENSSH " + KIND, width=70),
    key_example(KIND, before="Nov 25 12:00:00 host app[1]: "),
    key_example("EC " + KIND, before="        "),
    key_example(f"PGP {KIND} BLOCK", width=76),
    encrypted(),
    interleaved(),
    example("private-key", frame(KIND, BODY)[:-1], BODY),
    example("private-key", frame(KIND, BODY)[:9], BODY[:8]),
    example("private-key", frame(KIND, BODY)[5:], BODY[4:]),
    example("private-key", [NOISE, *frame(KIND, BODY)[20:], NOISE], BODY[19:]),
    example("private-key", frame("SSH2 ENCRYPTED " + KIND, BODY, "---- "), BODY),
    example("putty-key", ["Private-Lines: 25", *BODY, "Private-MAC: 0011aabb", NOISE], BODY),
    example("putty-key", [NOISE, *BODY[5:], "Private-MAC: 0011aabb", NOISE], BODY[5:]),
    example(
        "keyctl-dump",
        ["12 bytes of data in key:", "616c6963 653a7077 31323334", "cafe", NOISE],
        ["616c6963 653a7077 31323334", "cafe"],
    ),
]


@pytest.mark.parametrize("example", BLOCK_EXAMPLES)
@pytest.mark.parametrize("size", [1, 97, 1 << 20])
def test_a_secret_over_lines_goes(example: Example, size: int) -> None:
    stream, text = Redactor().stream(), example.line.encode()
    pieces = [stream.feed(text[place : place + size]) for place in range(0, len(text), size)]
    output = b"".join([*pieces, stream.feed(b"", last=True)]).decode()
    assert output == example.redacted
    assert stream.counts == {example.rule: len(example.secrets)}
    assert Redactor().redact_text(output) == (output, {})


def test_what_comes_long_after_a_cut_key_stays() -> None:
    later = look_alikes()
    text = "\n".join([*frame(KIND, BODY)[:9], *(["host app: all is well"] * 21), *later])
    output, _ = Redactor().redact_text(text)
    assert output.splitlines()[-len(later) :] == later


def test_public_things_in_frames_stay() -> None:
    lines = [*frame("CERTIFICATE", BODY), *frame("PUBLIC KEY", BODY), NOISE]
    assert Redactor().redact_text("\n".join(lines)) == ("\n".join(lines), {})


def test_sums_before_the_end_of_a_cut_key_stay() -> None:
    sums = ["0123456789abcdef" * 4] * 3
    text = "\n".join([*sums, *frame(KIND, BODY)[20:]])
    output, _ = Redactor().redact_text(text)
    assert output.splitlines()[:3] == sums


def test_another_secret_does_not_take_the_frame_with_it() -> None:
    begin, *_, end = frame("RSA " + KIND, BODY)
    output, _ = Redactor().redact_text(f"Set-Cookie: key=x{begin} {BODY[0]} {end}; Path=/")
    assert begin in output
    assert end in output
    assert BODY[0] not in output
