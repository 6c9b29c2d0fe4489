"""`python one_at_a_time.py FILE COMMAND…`: run the command while no other of these runs.

For `make`: two at once would build one virtual environment, and migrate one database. The other one
waits, and says so. POSIX only.
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
