"""Passwords: in options, arguments, files of credentials, URLs, hashes of them."""

from __future__ import annotations

from agent.redaction.rule import BLANK, Rule, any_case, any_of, assigned, same_case

_NUMBER = rb"(?!" + BLANK + rb"*\d{1,4}\b)"
# "pass" alone is also what tests do, and the end of other words.
_PASS = (
    rb"(?<!by)(?<!com)(?<!low)(?<!high)(?<!sur)(?<!tres)(?:pass[12]?(?=\\?[\"']?"
    rb"(?:" + BLANK + rb"*=|:(?=\S))" + _NUMBER + rb"|\\?[\"']" + BLANK + rb"*:)|"
    rb"(?-i:pass)(?=:" + BLANK + rb"+" + _NUMBER + rb"))"
)
_PWD = rb"pwd(?=\\?[\"']?" + BLANK + rb"*[=:]" + BLANK + rb"*\\?[\"']?[^/\s])"
# PAM names a service so, nsswitch a database.
_NO_PASSWD = rb"(?!:chauthtok|:[ \t]+(?:files|compat|sss|db|nis|ldap|systemd|winbind)\b)"
_WORD = (
    rb"(?:pass(?:word|wd"
    + _NO_PASSWD
    + rb"|phrase|code|wort)(?:[-_]?\d)?|kennwort|(?<![a-z])psk|"
    + _PASS
    + rb"|"
    + _PWD
    + rb")"
)
_HINTS = (
    *assigned(b"word", b"wd", b"phrase", b"code", b"wort", b"pass", b"psk"),
    *(b"word1", b"word2", b"word-", b"word_", b"pass1", b"pass2", b"wd2"),
)


def _option(program: bytes, option: bytes) -> bytes:
    """An ``option`` behind ``program``, but not behind another call of it: that would look at the
    same text again."""
    return program + rb"(?:(?!" + program + rb")[^\n]){0,2048}?{blank}" + option


PASSWORD_RULES: tuple[Rule, ...] = (
    Rule(
        "credential-line",
        _HINTS,
        any_case(
            rb"^(?:export )?{blank}*(?:- )?(?:\w[\w.-]{0,40})?pass(?:word|wd"
            + _NO_PASSWD
            + rb"|phrase)?[12]?{blank}*"
            rb"[=:](?![:>])" + _NUMBER + rb"{blank}*(?!{blank}){no_secret}"
            rb"(?![^\r\n]*\s[\w.-]{1,64} ?=)(?=\S+[ \t]+\S)([^\s\"',][^\r\n]*[^\s\r\n])"
        ),
        "the key",
        "in a file of credentials the whole rest of the line is the password, blanks and all",
    ),
    Rule(
        "password",
        _HINTS,
        any_case(_WORD + rb"{separator}{secret}"),
        "the key, and the options after it",
        "mount options, command lines, environments, JSON, YAML and messages name a password",
    ),
    Rule(
        "password-message",
        (b"password is", b"password for user"),
        any_case(
            rb"password (?:is(?: generated)?|for user \S{1,64})(?: for \S{1,64})?: ?{quote}"
            rb"{no_secret}([^\s\x00]+)"
        ),
        "the sentence",
        "a program tells the password that it made up",
    ),
    Rule(
        "password-argument",
        any_of(b"-pass|-pw|-secret|-token|-key|-api"),
        any_case(
            rb"(?<![\w-])(?!--?(?:no|ask|prompt|use|with|without)-)--?(?:[a-z0-9]{1,32}-){0,4}"
            rb"(?:pass(?:word|wd|phrase)?2?|pwd?|secret|token|api-?key|(?:access|secret)-key){gap}"
            rb"{quote}(?![-|]){secret}"
        ),
        "the option",
        "programs are given secrets as the word after an option",
    ),
    Rule(
        "program-argument",
        any_of(
            b"mysql|mariadb|sshpass|ldap|redis-cli|ipmitool|snmp|zip |7z |freerdp|curl|wget|"
            b"useradd|usermod|htpasswd|openssl|evil-winrm|crackmapexec|netexec|smbmap|mongo"
        ),
        any_case(
            rb"(?:sshpass{gap}-p{blank}*|"
            + rb"|".join(
                (
                    _option(rb"(?:mysql|mariadb)", rb"(?-i:-p)"),
                    _option(
                        rb"ldap(?:search|modify|add|delete|whoami|passwd|compare|modrdn)\b",
                        rb"(?-i:-w){blank}*",
                    ),
                    _option(rb"ldappasswd\b", rb"(?-i:-[as]){blank}*"),
                    _option(rb"redis-cli\b", rb"-a{blank}*"),
                    _option(rb"ipmitool\b", rb"(?-i:-P){blank}*"),
                    _option(
                        rb"snmp(?:walk|get|getnext|bulkwalk|bulkget|set|table|trap)\b",
                        rb"(?-i:-[cAX]){blank}*",
                    ),
                    _option(rb"\b(?:un)?zip\b", rb"(?-i:-P){blank}*"),
                    _option(rb"\b7za?\b", rb"-p"),
                    _option(rb"freerdp\b", rb"/p:"),
                    _option(
                        rb"(?:curl|wget)\b",
                        rb"(?:-u|--(?:proxy-)?user[ =]|-U){blank}*[\"']?[^\s\x00\"':]{0,256}:",
                    ),
                    _option(rb"user(?:add|mod)\b", rb"-p{gap}"),
                    _option(
                        rb"htpasswd\b",
                        rb"-\w{0,8}b\w{0,8}{gap}{word}{1,256}{gap}{word}{1,256}{gap}",
                    ),
                    _option(rb"openssl\b", rb"-(?:pass\w{0,8}{gap}pass:|K{gap})"),
                    _option(rb"(?:evil-winrm|crackmapexec|netexec|smbmap|mongo)", rb"-p{gap}"),
                )
            )
            + rb")"
            rb"{quote}(?![-/]){secret}"
        ),
        "the program, its other arguments and the option",
        "these programs take a secret behind a short option that means another thing elsewhere",
    ),
    Rule(
        "user-percent-password",
        (b"%",),
        any_case(
            rb"(?:(?<![\w-])-U{blank}*|--user(?:name)?[=\s\x00]{blank}*)[\"']?"
            rb"[^\s\x00%\"',]{1,256}%({value})|"
            # In a query of a URL a sign of percent means another thing.
            rb"\buser(?:name)?=[\"']?[^\s\x00%\"',&]{1,256}%(?![2-5][0-9a-f])({value})"
        ),
        "the user",
        "smbclient, rpcclient and net take -U user%password",
    ),
    Rule(
        "net-use",
        any_of(b"net use|net.exe use|net\x00use"),
        any_case(
            rb"net(?:\.exe)?{gap}use{gap}(?:(?:{word}:|\*){gap})?\\\\{word}{1,512}{gap}"
            rb"(?![/*])([^\s\x00]+)|"
            + _option(rb"net(?:\.exe)?{gap}use", rb"/user:{word}{1,256}{gap}(?![/*])([^\s\x00]+)")
        ),
        "the share and the user",
        "net use takes the password as a bare word",
    ),
    Rule(
        "piped-password",
        (b"echo", b"printf"),
        any_case(
            rb"(?:echo|printf){gap}(?:-\w{1,20}{gap}){0,4}((?:\"[^\"\n]+\"|'[^'\n]+'|[^\s\x00|]+)){blank}*\|"
            rb"{blank}*(?:sudo{gap}"
            rb")?(?:sudo|kinit|k5start|passwd|chpasswd|smbpasswd|cryptsetup|openssl|gpg|su|ssh-add|"
            rb"cifscreds|keyctl)\b"
        ),
        "the programs",
        "a password is piped into a program that would ask for it",
    ),
    Rule(
        "url-password",
        (b"//",),
        any_case(rb"//[^\s\x00/:@\"'<>]{0,256}:([^\s\x00/\"'<>]{1,512})@"),
        "the user and the host",
        "URLs of shares, proxies, databases and repositories carry user:password@",
    ),
    Rule(
        "ldap-bind",
        any_of(
            b"bindpw|bind_pw|bindsecret|bind_secret|bindcred|bind_cred|root_pw|rootpw|"
            b"authtok|unicodepwd|userpassword"
        ),
        any_case(
            rb"(?:bind_?pw|bind_?secret|bind_?cred(?:ential)?s?|root_?pw|authtok(?!_type)|unicodePwd|"
            rb"userPassword)(?:{blank}*(?:=|::?){blank}*|{gap}){quote}{secret}"
        ),
        "the key",
        "sssd, nslcd, slapd and LDIF name the secret of a bind in their own words",
    ),
    Rule(
        "netrc",
        (b"login",),
        any_case(rb"\blogin{gap}{word}{1,256}{gap}password{gap}{no_secret}([^\s\x00]+)"),
        "machine and login",
        "netrc and FTP scripts: the password is the word after the word",
    ),
    Rule(
        "sql-password",
        any_of(b"identified|password '|password('"),
        any_case(
            rb"(?:identified(?: with \S{1,64})?(?: by| as)(?: password)?|\bpassword){blank}*"
            rb"(?:\({blank}*)?'([^'\n]+)'"
        ),
        "the statement",
        "statements that make a user hold its password",
    ),
    Rule(
        "snmp-community",
        (b"community",),
        any_case(rb"\b(?:r[ow]community6?|trapcommunity|snmp-server community){gap}([^\s\x00]+)"),
        "the key",
        "a community string is a password",
    ),
    Rule(
        "xml-secret",
        (b"</",),
        any_case(
            rb"<(?:[\w-]{1,32}[:_-])?(?:password|passwd|passphrase|secret|token|api_?key)"
            rb"(?:\s[^<>\n]{0,256})?>([^<>\n]+)</"
        ),
        "the element",
        "libvirt, tomcat and Windows files hold secrets as elements",
    ),
    Rule(
        "password-hash",
        any_of(b"$|{SSHA|{SHA|{CRYPT}|{MD5}|{PBKDF2"),
        same_case(
            rb"(\$(?:1|2[aby]|5|6|7|y|gy|apr1|argon2(?:id?|d)|krb5\w{2,12})\$[\w./$=,+*@-]{12,}|"
            rb"\{(?:S?SHA\d*|CRYPT|MD5|PBKDF2[\w-]*)\}[\w./$+=]{8,})"
        ),
        "nothing",
        "hashes of passwords (shadow, LDAP, roasted tickets) can be guessed offline",
    ),
)
