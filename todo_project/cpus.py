"""How many CPUs this process may use: the default number of processes of the web server."""

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath


def available(root: Path = Path("/")) -> int:
    """The CPUs that it may run on, or the container's quota of CPU time, rounded up, if that is
    less. `root` is where /proc and /sys are."""
    has_affinity = hasattr(os, "sched_getaffinity")  # Linux
    cpus = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
    return min([cpus, *(math.ceil(quota) for quota in quotas(root))])


def quotas(root: Path) -> Iterator[float]:
    """The limits of the cgroup of this process and of those above it, in CPUs.

    In a container its own cgroup is often mounted in the place of the topmost one.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)  # in version 2 there are none
        if controllers and "cpu" not in controllers.split(","):
            continue
        own = PurePosixPath(path)
        for mount in ("cpu", controllers) if controllers else ("",):
            for group in (own, *own.parents):
                yield from quota(root / "sys/fs/cgroup" / mount / group.relative_to("/"))


def quota(folder: Path) -> Iterator[float]:
    """The limit of one cgroup, if it has one."""
    with suppress(OSError, ValueError):  # "max" is no number
        microseconds, period = (folder / "cpu.max").read_text().split()
        yield int(microseconds) / int(period)
    with suppress(OSError, ValueError):
        if (allowed := int((folder / "cpu.cfs_quota_us").read_text())) > 0:
            yield allowed / int((folder / "cpu.cfs_period_us").read_text())
