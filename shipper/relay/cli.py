"""The command ``aod-relay``."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields
from pathlib import Path

from agent import __version__
from shipper.relay.authorized_key import PROGRAM, UsageError
from shipper.relay.limits import Limits

EXIT_OK = 0
EXIT_REFUSED = 1
EXIT_USAGE = 2

INBOX = Path("/var/lib/aod/inbox")
# Files 0640, directories open to the group and closed to the world.
UMASK = 0o007

_MAX_MIB = 1 << 30

DESCRIPTION = """\
The central host's end of `destination: relay`. Hosts without bucket credentials push their
bundles with rsync over ssh; each has a key of its own, which this program confines to the folder
INBOX/HOST: it can add bundles there and neither change nor remove nor read anything. What
it answered for is on disk. The same aod-shipper as everywhere carries the folders to the bucket.
docs/relay.md has the set-up."""

EXAMPLES = """\
examples:
  aod-relay authorize --host web-17 web-17.pub >> /etc/aod/relay_authorized_keys
                                 let web-17 in (its key: ssh-keygen -t ed25519)
  aod-relay authorize-many < fleet.json
                                 the lines of many hosts at once, for a program: it reads
                                 [{"host": "web-17", "key": "ssh-ed25519 ...", "max_host_mb": N}]
                                 and answers each with its "line", or with "refused"
  aod-relay hosts                who waits with how much, and was heard of when
  aod-relay hosts --json         the same for a monitoring system

`receive` is for ssh alone: the line that `authorize` prints makes sshd start it, whatever the
client asks for, with the request in SSH_ORIGINAL_COMMAND:
  rsync --server --daemon .      the archive, into incoming/
  deliver ULID                   its manifest on standard input; answered when both are durable
  tombstone ULID, heartbeat      a JSON document on standard input
  check                          who is asking, and how much room there is
Each answer is one line of JSON; a refusal has "refused", "kind" and "remedy" in it.

exit status: 0 fine, 1 refused, 2 wrong usage"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    options = build_parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], int] = options.command
    try:
        return command(options)
    except UsageError as error:
        print(f"aod-relay: {error}", file=sys.stderr)
        return EXIT_USAGE
    except OSError as error:
        print(f"aod-relay: {error}", file=sys.stderr)
        return EXIT_REFUSED


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="aod-relay", description=DESCRIPTION, epilog=EXAMPLES, formatter_class=layout
    )
    parser.add_argument("--version", action="version", version=f"aod-relay {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    receive_parser = _add(commands, receive, "receive", "serve one connection of a host (for sshd)")
    authorize_parser = _add(commands, authorize, "authorize", "print the line that lets a host in")
    many_parser = _add(commands, authorize_many, "authorize-many", "the lines of many hosts")
    hosts_parser = _add(commands, show_hosts, "hosts", "what waits, by host")
    for subparser in (receive_parser, authorize_parser):
        subparser.add_argument("--host", required=True, help="the host's name, and its folder's")
        _add_limits(subparser)
    receive_parser.add_argument("--inbox", type=Path, required=True, metavar="DIR")
    for subparser in (authorize_parser, many_parser, hosts_parser):
        subparser.add_argument(
            "--inbox", type=Path, default=INBOX, metavar="DIR", help="(default: %(default)s)"
        )
    for subparser in (authorize_parser, many_parser):
        subparser.add_argument(
            "--program",
            type=Path,
            default=PROGRAM,
            metavar="FILE",
            help="this program as sshd is to start it (default: %(default)s)",
        )
    authorize_parser.add_argument("key", type=Path, metavar="KEYFILE", help="its public key")
    hosts_parser.add_argument("--json", action="store_true", help="print JSON for machines")
    return parser


def receive(options: argparse.Namespace) -> int:
    """``aod-relay receive``."""
    import syslog

    from shipper.relay.authorized_key import check_host, check_path
    from shipper.relay.session import Session

    inbox, host = check_path(options.inbox, "inbox"), check_host(options.host)
    if os.geteuid() == 0:
        raise UsageError("the relay does not run as root: let the keys in as user aod-relay")
    os.umask(UMASK)
    syslog.openlog("aod-relay", syslog.LOG_PID, syslog.LOG_AUTH)
    return Session(inbox, host, _limits(options)).serve(os.environ.get("SSH_ORIGINAL_COMMAND", ""))


def authorize(options: argparse.Namespace) -> int:
    """``aod-relay authorize``."""
    from shipper.relay.authorized_key import authorized_line, read_public_key

    key, limits = read_public_key(options.key), _limits(options)
    print(authorized_line(key, options.host, options.inbox, options.program, limits))
    return EXIT_OK


def authorize_many(options: argparse.Namespace) -> int:
    """``aod-relay authorize-many``: one bad host among many is told of in its answer."""
    try:
        requests = json.load(sys.stdin)
    except ValueError as error:
        raise UsageError(f"standard input is no JSON: {error}") from None
    if not isinstance(requests, list):
        raise UsageError("standard input is no list of hosts")
    answers = [_answer(request, options) for request in requests]
    print(json.dumps(answers, indent=2))
    return EXIT_OK


def _answer(request: object, options: argparse.Namespace) -> dict[str, str]:
    from shipper.relay.authorized_key import authorized_line, parse_public_key

    try:
        if not isinstance(request, dict):
            raise UsageError("a host is an object with host, key, and perhaps limits")
        names = {limit.name for limit in fields(Limits)}
        if unknown := sorted(request.keys() - {"host", "key"} - names):
            raise UsageError(f"{', '.join(map(ascii, unknown))}: there is no such limit")
        limits = {name: _mib(str(request[name])) for name in names & request.keys()}
        host, text = str(request.get("host", "")), str(request.get("key", ""))
        key = parse_public_key(text.encode(), f"the key of {host!a}")
        line = authorized_line(key, host, options.inbox, options.program, Limits(**limits))
    except (UsageError, argparse.ArgumentTypeError) as error:
        return {"refused": str(error)}
    return {"line": line}


def show_hosts(options: argparse.Namespace) -> int:
    """``aod-relay hosts``."""
    from shipper.relay.hosts import as_table, read_hosts

    hosts = read_hosts(options.inbox)
    print(json.dumps([asdict(one) for one in hosts], indent=2) if options.json else as_table(hosts))
    return EXIT_OK


def _add(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    command: Callable[[argparse.Namespace], int],
    name: str,
    purpose: str,
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=purpose, description=purpose)
    parser.set_defaults(command=command)
    return parser


def _add_limits(parser: argparse.ArgumentParser) -> None:
    for limit in fields(Limits):
        parser.add_argument(
            f"--{limit.name.replace('_', '-')}",
            type=_mib,
            default=limit.default,
            metavar="N",
            help=f"{limit.metadata['help']} (default: %(default)s)",
        )


def _mib(text: str) -> int:
    if not text.isdecimal() or int(text) > _MAX_MIB:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of MiB")
    return int(text)


def _limits(options: argparse.Namespace) -> Limits:
    return Limits(options.max_host_mb, options.max_bundle_mb, options.min_free_mb)


if __name__ == "__main__":
    sys.exit(main())
