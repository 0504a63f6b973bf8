"""A process that loads a probe, says so, and holds it until it is killed."""

import json
import sys

from agent.kernel.probe import load_probe
from tests.ebpf_host import PRCTL_LOADER, program_ids


def main() -> None:
    probe = load_probe(command=PRCTL_LOADER)
    print(json.dumps({"programs": program_ids(probe), "bcc": "bcc" in sys.modules}), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
