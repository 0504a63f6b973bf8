"""Private keys, keys of SMB sessions, hashes that serve as keys, and what Kerberos hands out."""

from __future__ import annotations

from agent.redaction.rule import Block, Rule, any_case, any_of, same_case

_HEX_BYTES = rb"(?:0x)?[0-9a-f]{2}(?:[ :-]?[0-9a-f]{2}){7,127}"

KEY_RULES: tuple[Rule, ...] = (
    Rule(
        "private-key-line",
        (b"PRIVATE KEY",),
        same_case(
            rb"-----?BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----?(?:\\\\?[rn]|[ ,\"']){1,16}"
            rb"(?:(?!-----?END)[^\n])*?"
            rb"([A-Za-z0-9+/](?:[A-Za-z0-9+/=\\ ,\"']|-(?!-----?END|----))*)"
        ),
        "the frame",
        "a private key put into one line, as in JSON",
    ),
    Rule(
        "smb-key",
        any_of(
            b"session key|session_key|sessionkey|signing key|signing_key|signingkey|"
            b"cryption key|cryption_key|cryptionkey|authentication key|auth key|"
            b"application key|serverin|serverout|server in key|server out key|reply key|"
            b"response key|preauth key|server key|client key"
        ),
        any_case(
            rb"(?:(?:session|signing|encryption|decryption|auth(?:entication)?|application|server|"
            rb"client|response|preauth|reply|server ?(?:in|out))|^)[ _-]?(?:in|out)?{blank}*key"
            rb"{blank}*(?:[=:]{blank}*)?(?:[0-9a-f]{8}:{blank}*)?(?<![0-9a-f])("
            + _HEX_BYTES
            + rb")(?![0-9a-z])"
        ),
        "which key it is",
        "`smbinfo keys` and a kernel with CIFS_DEBUG_DUMP_KEYS print what opens every capture",
    ),
    Rule(
        "wireshark-key",
        (b"seskey",),
        any_case(
            rb"(?:smb2_seskey_list:[0-9a-f]+,|seskey{blank}*[=:]{blank}*"
            rb")\"*([0-9a-f]{16,}(?:,[0-9a-f\"]+)*)"
        ),
        "the session id",
        "the same keys as Wireshark wants them",
    ),
    Rule(
        "nt-hash",
        any_of(b"nthash|nt hash|nt_hash|nt-hash|lmhash|lm hash|-hashes|::|:[u|ntlm|aad3b435"),
        any_case(
            rb"(?:nt|lm|ntlm|nthash|lmhash|rc4)(?:v2)?(?:[-_ ]?(?:password[-_ ]?)?hash(?:es)?)?"
            rb"(?:{blank}*[=:]{blank}*|{gap})[\"']?((?:[0-9a-f]{32}:)?[0-9a-f]{32})(?![0-9a-f])|-hashes"
            rb"{blank}+[\"']?([0-9a-f]{0,32}:[0-9a-f]{32})(?![0-9a-f])|"
            rb":\d{1,10}:([0-9a-fx]{32}:[0-9a-fx]{32}):|"
            rb"(aad3b435b51404eeaad3b435b51404ee:[0-9a-f]{32})(?![0-9a-f])|"
            rb"(?<=[^\s:])::[^\s:]{0,128}:([0-9a-f]{16,48}:[0-9a-f]{32,48}:[0-9a-f]{16,})"
        ),
        "the account",
        "an NT hash is as good as its password; NetNTLM answers can be guessed offline",
    ),
    Rule(
        "keytab-key",
        (b"(0x",),
        any_case(
            rb"(?:@[\w.-]{1,128}|\)){blank}+\(0x([0-9a-f]{32,128})\)|\(des[\w-]*\){blank}"
            rb"+\(0x([0-9a-f]{16})\)"
        ),
        "principal and encryption type",
        "`klist -K` prints the keys of a keytab",
    ),
    Rule(
        "kerberos-blob",
        any_of(b"YII|YIG|YYI|boI|doI|TlRMTVNTUA|oYI|oYG"),
        same_case(
            rb"(?<![A-Za-z0-9+/])((?:YI[IG]|YYI|boI|doI|oYI|oYG|TlRMTVNTUA)[A-Za-z0-9+/]{37,}={0,2})"
        ),
        "nothing",
        "tickets, SPNEGO and NTLMSSP messages, told by how their encoding begins",
    ),
    Rule(
        "kerberos-hex",
        any_of(b"a003020105|2b0601050502|2a864886f71201020|4e544c4d53535000"),
        any_case(
            rb"(?<![0-9a-f])(?:0x)?((?:6[0-9a-f]|7[0-9a-f])(?:82[0-9a-f]{4}|81[0-9a-f]{2}|"
            rb"[0-7][0-9a-f])[0-9a-f]{0,20}(?:a003020105|06062b0601050502|06092a864886f71201020)"
            rb"[0-9a-f]{16,}|4e544c4d53535000[0-9a-f]{16,})"
        ),
        "nothing",
        "the same in hexadecimal",
    ),
    Rule(
        "keyctl-payload",
        (b"keyctl", b":hex:"),
        any_case(
            rb"keyctl{gap}(?:add{gap}{word}{1,128}{gap}{word}{1,512}{gap}|"
            rb"(?:instantiate|update){gap}{word}{1,32}{gap})((?:\"[^\"\n]+\"|'[^'\n]+'|[^\s\x00]+))|:hex:([0-9a-f]{2,})"
        ),
        "type and description of the key",
        "the payload of a logon key is user:password",
    ),
    Rule(
        "dm-crypt-key",
        (b" crypt ",),
        any_case(rb"\bcrypt [\w:()-]{1,64} ([0-9a-f]{32,256}) "),
        "the cipher",
        "`dmsetup table --showkeys`",
    ),
    Rule(
        "audit-hex",
        (b"audit",),
        any_case(
            rb"type=(?:user_)?tty\b[^\n]{0,256}?\bdata=([0-9a-f]{2,}|\"[^\"\n]+\")|"
            rb"(?:proctitle|cmd|data|exe|a\d{1,3}(?:\[\d+\])?)=(?=[0-9a-f]*(?:70617373|50415353|"
            rb"50617373|746f6b656e|544f4b454e|736563726574|534543524554|5f4b4559))([0-9a-f]{8,})"
        ),
        "the record",
        "audit writes command lines and key strokes in hexadecimal",
    ),
)

# A line of a key, or its short last one. What is only hexadecimal is a sum or a number.
_BODY = same_case(
    rb"(?:^|[\s:>|\"'])(?![0-9a-fA-F]+[\s\"',]*$)([A-Za-z0-9+/]{24,}={0,2})[\s\"',]*$|"
    rb"(?:^|: )\s*([A-Za-z0-9+/]{1,23}={0,2})\s*$"
)

KEY_BLOCKS: tuple[Block, ...] = (
    Block(
        "private-key",
        b"private key",
        same_case(rb"----[ -]?BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?[ -]?----"),
        _BODY,
        same_case(rb"----[ -]?END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?[ -]?----"),
        "the frame, what a log puts before each line, and lines of others between them",
        "private keys over lines (PEM, OpenSSH, PGP), whole or cut off at either end",
        found_from_end=True,
    ),
    Block(
        "putty-key",
        b"private-",
        same_case(rb"^Private-Lines: \d+"),
        _BODY,
        same_case(rb"^Private-MAC:"),
        "the public half",
        "a private key in PuTTY's format",
        found_from_end=True,
    ),
    Block(
        "keyctl-dump",
        b"bytes of data in key:",
        same_case(rb"\d bytes of data in key:"),
        same_case(rb"^\s*([0-9a-f]{2,8}(?: [0-9a-f]{2,8})*)\s*$"),
        same_case(rb"^(?!\s*[0-9a-f]{2,8}(?: [0-9a-f]{2,8})*\s*$)"),
        "the size",
        "`keyctl read` prints the payload under its size",
    ),
)
