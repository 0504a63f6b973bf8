"""``aod-shipper``, but for the size of its parts; and it can be told when to die."""

from __future__ import annotations

import sys

from shipper.cli import main
from tests.store_matrix.spool_steps import watched_steps
from tests.store_matrix.victim import small_parts

if __name__ == "__main__":
    with small_parts(), watched_steps():
        sys.exit(main())
