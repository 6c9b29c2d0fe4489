"""`python one_at_a_time.py FILE COMMAND…`: run a command while no other one holds the lock FILE.

For `make`: two at the same time would create the same virtual environment and migrate the same
database. The second one waits and prints that. POSIX only.
"""

import fcntl
import subprocess
import sys

with open(sys.argv[1], "a") as lock:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        sys.stderr.write("Another make is preparing this folder; waiting for it.\n")
        fcntl.flock(lock, fcntl.LOCK_EX)
    sys.exit(subprocess.call(sys.argv[2:]))
