"""API keys, tokens, cookies and signatures in what programs of the web print."""

from __future__ import annotations

from agent.redaction.rule import STOP, Rule, any_case, any_of, assigned, same_case

_PATH = (
    rb"(?!(?:file:|~|\.{0,2})/(?:etc|var|run|root|home|usr|opt|tmp|srv|proc|dev|mnt|media|sys|lib|"
    rb"bin|boot|data|secrets|org|api)?/?[\w.-]{0,256}(?:/|" + STOP + rb"))"
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
            rb"(?:authorization|authenticate)\\?[\"']?{blank}*[=:]{blank}*\\?[\"']?"
            rb"(?:(?:basic|bearer|negotiate|ntlm|apikey|token|kerberos){blank}"
            rb"+(?!realm=)([\w.~+/=-]{6,})|(?:digest|hawk|aws4-hmac-sha256|sharedkey\w*){blank}"
            rb"+(?!realm=)([^\r\n\"'][^\r\n]*))"
        ),
        "the header and the scheme",
        "HTTP logs of Basic, Bearer, Negotiate, Digest and signed requests",
    ),
    Rule(
        "bearer-token",
        (b"bearer",),
        any_case(rb"\bbearer{blank}+(?=[\w.~+/=-]*\d)([\w.~+=-][\w.~+/=-]{15,})"),
        "the word",
        "a bearer token outside of its header",
    ),
    Rule(
        "cookie",
        (b"cookie",),
        any_case(
            rb"set-cookie2?\\?[\"']?:{blank}*(\[[^\]\n]+\]?)|"
            rb"set-cookie2?\\?[\"']?:{blank}*[\"']?([^\s\"'\[][^\r\n\"']*)|"
            rb"(?<![\w-])cookie\\?[\"']?:{blank}*[\"']?(?!c=)"
            rb"([\w.-]{2,}=[^\s;\"']{4,}[^\r\n\"']*)|"
            rb"mit-magic-cookie-1{blank}+([0-9a-f]{16,})"
        ),
        "the header",
        "a cookie is a session; fscache and NFS cookies are none",
    ),
    Rule(
        "session-cookie",
        any_of(b"jsessionid|phpsessid|asp.net_sessionid|connect.sid|_session=|csrftoken|sid="),
        any_case(
            rb"(?:jsessionid|phpsessid|asp\.net_sessionid|connect\.sid|[a-z]_session|csrftoken|"
            rb"(?<![\w.])sid(?==s%3a|=s:))=([\w.%:+/~-]{8,})"
        ),
        "the name",
        "the same in access logs and URLs, outside of its header",
    ),
    Rule(
        "jwt",
        (b"eyJ",),
        same_case(
            rb"(?:(?<![A-Za-z0-9])|(?<=%3D)|(?<=%20))(eyJ(?=[\w-]{8})"
            # Up to where another one may begin.
            rb"[A-Za-z0-9]*(?:[_-](?!eyJ)[A-Za-z0-9]*)*(?:\.[\w-]{2,16384}){1,4}\.?)"
        ),
        "nothing",
        "a signed token admits whoever holds it",
    ),
    Rule(
        "aws-key-id",
        any_of(b"AKIA|ASIA|ABIA|ACCA"),
        same_case(rb"(?<![A-Za-z0-9])((?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{12,16})(?![A-Za-z0-9])"),
        "nothing",
        "it names the account, and half of a pair belongs to nobody",
    ),
    Rule(
        "github-token",
        any_of(b"ghp_|gho_|ghu_|ghs_|ghr_|github_pat_"),
        same_case(rb"((?:gh[pousr]|github_pat)_\w{16,})"),
        "nothing",
        "tokens of GitHub",
    ),
    Rule(
        "slack-token",
        any_of(b"xox|xapp-|hooks.slack.com"),
        same_case(
            rb"((?:xox[a-z]|xapp)-[\w-]{10,})|hooks\.slack\.com/(?:services|workflows)/([\w/-]{10,})"
        ),
        "nothing, of a web hook its host",
        "tokens and web hooks of Slack",
    ),
    Rule(
        "google-key",
        any_of(b"AIza|ya29.|GOCSPX-|1//0"),
        same_case(rb"(AIza[\w-]{20,}|ya29\.[\w-]{16,}|GOCSPX-[\w-]{16,}|\b1//0[\w-]{20,})"),
        "nothing",
        "API keys, access and refresh tokens of Google",
    ),
    Rule(
        "vendor-token",
        any_of(
            b"glpat-|sk-|sk_live_|rk_live_|sk_test_|SG.|npm_|pypi-|hf_|hvs.|dop_v1_|shpat_|"
            b"AGE-SECRET-KEY-|glrt-|dckr_pat_"
        ),
        same_case(
            rb"(?<![A-Za-z0-9])((?:(?:glpat-|glrt-|[sr]k_(?:live|test)_|npm_|pypi-|hf_|hvs\.|shpat_|"
            rb"dckr_pat_|AGE-SECRET-KEY-)(?=[\w-]{0,64}\d)|dop_v1_)[\w-]{16,}|"
            rb"sk-(?=[\w-]{0,64}\d)(?:[a-z]{1,16}-)?[A-Za-z0-9]{20,}[\w-]*|"
            rb"SG\.(?=[\w.-]{0,64}\d)[\w-]{16,64}\.[\w-]{16,})"
        ),
        "nothing",
        "tokens that their makers' prefixes tell",
    ),
    Rule(
        "signed-url",
        (b"sig=", b"signature="),
        any_case(rb"(?:[?&;](?:amp;)?sig=|signature=)([\w%+/=.-]{16,})"),
        "the rest of the URL",
        "a signature in a URL is the right to what it names (Azure SAS, S3, Google, CloudFront)",
    ),
    Rule(
        "account-key",
        any_of(b"accountkey|sharedaccesskey|sharedsecret|sharedaccesssignature"),
        any_case(
            rb"(?:accountkey|sharedaccesskey|sharedsecretkey|sharedsecret(?:issuer)?value|"
            rb"sharedaccesssignature)=([^\s;\"',]{4,})"
        ),
        "the rest of the connection string",
        "connection strings of Azure storage and buses",
    ),
    Rule(
        "registry-auth",
        any_of(b'"auth|_auth|"identitytoken'),
        any_case(
            rb"(?:\"(?:auth|identitytoken)\\?\"{blank}*:{blank}*\\?\"|\b_auth(?:token)?{blank}*="
            rb"{blank}*[\"']?)([\w+/=.~-]{8,})"
        ),
        "the key",
        "config.json of Docker and .npmrc hold user and password in base64",
    ),
    Rule(
        "secret-assignment",
        assigned(b"key", b"secret", b"token", b"otp"),
        any_case(
            _KEY_NAME + rb"{separator}{no_secret}" + _PATH + rb"(?!0x[0-9a-f]{1,16}\b|\d{1,5}\b)"
            rb"(?=[^\s\x00\"']{0,64}(?-i:[0-9A-Z_+/=!$%#@.~^*-])|\S{20})(?=\S{6})({value})"
        ),
        "the key",
        "keys, secrets and tokens by the name of the key: environment, JSON, YAML, queries",
    ),
)
