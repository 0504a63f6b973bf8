"""API keys, tokens, cookies and signatures in what programs of the web print."""

from __future__ import annotations

from agent.redaction.rule import (
    BLANK,
    NO_SECRET,
    SEPARATOR,
    STOP,
    VALUE,
    Rule,
    any_case,
    assigned,
    same_case,
)

_PATH = (
    rb"(?!(?:file:|~|\.{0,2})/(?:etc|var|run|root|home|usr|opt|tmp|srv|proc|dev|mnt|media|sys|lib|"
    rb"bin|boot|data|secrets|org|api)?/?[\w.-]*(?:/|" + STOP + rb"))"
)
_KEY_NAME = (
    rb"(?:(?:api|access|auth|app|client|shared|private|pre-?shared|encryption|signing|master|"
    rb"secret|service|account|consumer|storage|license|session|subscription)[-_.]?key|"
    rb"secret(?:[-_]?(?:access)?[-_]?key)?|(?<![a-z])(?:otp|totp)|"
    rb"(?:(?<![a-z])|(?:auth|access|refresh|session|security|bearer|csrf|id|user|api))token)"
)

TOKEN_RULES: tuple[Rule, ...] = (
    Rule(
        "authorization",
        (b"authorization", b"authenticate"),
        any_case(
            rb"(?:authorization|authenticate)\\?[\"']?",
            BLANK,
            rb"*[=:]",
            BLANK,
            rb"*\\?[\"']?",
            rb"(?:(?:basic|bearer|negotiate|ntlm|apikey|token|kerberos)",
            BLANK,
            rb"+(?!realm=)([\w.~+/=-]{6,})|(?:digest|hawk|aws4-hmac-sha256|sharedkey\w*)",
            BLANK,
            rb"+(?!realm=)([^\r\n\"'][^\r\n]*))",
        ),
        "the header and the scheme",
        "HTTP logs of Basic, Bearer, Negotiate, Digest and signed requests",
    ),
    Rule(
        "bearer-token",
        (b"bearer",),
        any_case(rb"\bbearer", BLANK, rb"+(?=[\w.~+/=-]*\d)([\w.~+=-][\w.~+/=-]{15,})"),
        "the word",
        "a bearer token outside of its header",
    ),
    Rule(
        "cookie",
        (b"cookie",),
        any_case(
            rb"(?<![\w-])(?:set-cookie2?\\?[\"']?:",
            BLANK,
            rb"*[\"']?([^\s\"'][^\r\n\"']*)|",
            rb"cookie\\?[\"']?:",
            BLANK,
            rb"*[\"']?(?!c=)([\w.-]{2,}=[^\s;\"']{4,}[^\r\n\"']*)|",
            rb"mit-magic-cookie-1",
            BLANK,
            rb"+([0-9a-f]{16,}))",
        ),
        "the header",
        "a cookie is a session; fscache and NFS cookies are none",
    ),
    Rule(
        "session-cookie",
        (
            b"jsessionid",
            b"phpsessid",
            b"asp.net_sessionid",
            b"connect.sid",
            b"_session=",
            b"csrftoken",
            b"sid=",
        ),
        any_case(
            rb"(?:jsessionid|phpsessid|asp\.net_sessionid|connect\.sid|[a-z]_session|csrftoken|"
            rb"(?<![\w.])sid(?==s%3a|=s:))=([\w.%:+/~-]{8,})",
        ),
        "the name",
        "the same in access logs and URLs, outside of its header",
    ),
    Rule(
        "jwt",
        (b"eyJ",),
        same_case(rb"(eyJ[\w-]{8,8192}(?:\.[\w-]{2,16384}){1,4}\.?)"),
        "nothing",
        "a signed token admits whoever holds it",
    ),
    Rule(
        "aws-key-id",
        (b"AKIA", b"ASIA", b"ABIA", b"ACCA"),
        same_case(rb"(?<![A-Za-z0-9])((?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{12,16})(?![A-Za-z0-9])"),
        "nothing",
        "it names the account, and half of a pair belongs to nobody",
    ),
    Rule(
        "github-token",
        (b"ghp_", b"gho_", b"ghu_", b"ghs_", b"ghr_", b"github_pat_"),
        same_case(rb"((?:gh[pousr]|github_pat)_\w{16,})"),
        "nothing",
        "tokens of GitHub",
    ),
    Rule(
        "slack-token",
        (b"xox", b"xapp-", b"hooks.slack.com"),
        same_case(
            rb"((?:xox[a-z]|xapp)-[\w-]{10,})|hooks\.slack\.com/(?:services|workflows)/([\w/-]{10,})"
        ),
        "nothing, of a web hook its host",
        "tokens and web hooks of Slack",
    ),
    Rule(
        "google-key",
        (b"AIza", b"ya29.", b"GOCSPX-", b"1//0"),
        same_case(rb"(AIza[\w-]{20,}|ya29\.[\w-]{16,}|GOCSPX-[\w-]{16,}|\b1//0[\w-]{20,})"),
        "nothing",
        "API keys, access and refresh tokens of Google",
    ),
    Rule(
        "vendor-token",
        (
            b"glpat-",
            b"sk-",
            b"sk_live_",
            b"rk_live_",
            b"sk_test_",
            b"SG.",
            b"npm_",
            b"pypi-",
            b"hf_",
            b"hvs.",
            b"dop_v1_",
            b"shpat_",
            b"AGE-SECRET-KEY-",
            b"glrt-",
            b"dckr_pat_",
        ),
        same_case(
            rb"(?<![A-Za-z0-9])((?:glpat-|glrt-|[sr]k_(?:live|test)_|npm_|pypi-|hf_|hvs\.|dop_v1_|"
            rb"shpat_|dckr_pat_|AGE-SECRET-KEY-)[\w-]{16,}|sk-(?:[a-z]+-)?[A-Za-z0-9]{20,}[\w-]*|"
            rb"SG\.[\w-]{16,}\.[\w-]{16,})",
        ),
        "nothing",
        "tokens that their makers' prefixes tell",
    ),
    Rule(
        "signed-url",
        (b"sig=", b"signature="),
        any_case(
            rb"(?:[?&;](?:amp;)?sig=|signature=)([\w%+/=.-]{16,})",
        ),
        "the rest of the URL",
        "a signature in a URL is the right to what it names (Azure SAS, S3, Google, CloudFront)",
    ),
    Rule(
        "account-key",
        (b"accountkey", b"sharedaccesskey", b"sharedsecret", b"sharedaccesssignature"),
        any_case(
            rb"(?:accountkey|sharedaccesskey|sharedsecretkey|sharedsecret(?:issuer)?value|"
            rb"sharedaccesssignature)=([^\s;\"',]{4,})"
        ),
        "the rest of the connection string",
        "connection strings of Azure storage and buses",
    ),
    Rule(
        "registry-auth",
        (b'"auth', b"_auth", b'"identitytoken'),
        any_case(
            rb"(?:\"(?:auth|identitytoken)\\?\"",
            BLANK,
            rb"*:",
            BLANK,
            rb"*\\?\"|",
            rb"\b_auth(?:token)?",
            BLANK,
            rb"*=",
            BLANK,
            rb"*[\"']?)([\w+/=.~-]{8,})",
        ),
        "the key",
        "config.json of Docker and .npmrc hold user and password in base64",
    ),
    Rule(
        "secret-assignment",
        assigned(b"key", b"secret", b"token", b"otp"),
        any_case(
            _KEY_NAME,
            SEPARATOR,
            NO_SECRET,
            _PATH,
            rb"(?!0x[0-9a-f]{1,16}\b|\d{1,5}\b)",
            # A word of a sentence has neither digit nor capital nor sign.
            rb"(?=[^\s\x00\"']*(?-i:[0-9A-Z_+/=!$%#@.~^*-])|\S{20})(?=\S{6})(",
            VALUE,
            rb")",
        ),
        "the key",
        "keys, secrets and tokens by the name of the key: environment, JSON, YAML, queries",
    ),
)
