"""The benchmarks: the cost of the service and of its peers, in one run on one machine."""

import os

# The ids of tasks are made by `load_demo`, whose module needs settings. The measured servers have
# an environment of their own.
os.environ.setdefault("DEBUG", "true")
