"""The benchmarks: what the service costs, beside its peers, in one run on one machine."""

import os

# Tasks are named as `load_demo` names them, and its module needs settings. The servers that are
# measured have an environment of their own.
os.environ.setdefault("DEBUG", "true")
