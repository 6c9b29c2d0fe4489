"""The default number of processes is that of the CPUs that the container may use."""

import os
from pathlib import Path

import pytest

from todo_project import cpus

V2 = "0::{}\n"
V1 = "3:cpuset:/\n2:cpu,cpuacct:{}\n1:name=systemd:/\n0::/\n"


@pytest.fixture(autouse=True)
def eight_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))


@pytest.mark.parametrize(
    ("cgroup", "files", "expected"),
    [
        (None, {}, 8),
        (V2.format("/"), {}, 8),
        (V2.format("/"), {"cpu.max": "max 100000\n"}, 8),
        (V2.format("/"), {"cpu.max": "200000 100000\n"}, 2),
        (V2.format("/"), {"cpu.max": "150000 100000\n"}, 2),
        (V2.format("/"), {"cpu.max": "10000 100000\n"}, 1),
        (V2.format("/"), {"cpu.max": "9000000 100000\n"}, 8),
        (V2.format("/a/b"), {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "300000 100000\n"}, 3),
        (V2.format("/a/b"), {"cpu.max": "300000 100000\n"}, 3),  # mounted as the topmost one
        (V2.format("/a:b"), {"a:b/cpu.max": "300000 100000\n"}, 3),
        (V1.format("/"), {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 8),
        (V1.format("/"), {"cpu/cpu.cfs_quota_us": "50000", "cpu/cpu.cfs_period_us": "20000"}, 3),
        (
            V1.format("/docker/x"),
            {
                "cpu,cpuacct/docker/x/cpu.cfs_quota_us": "200000",
                "cpu,cpuacct/docker/x/cpu.cfs_period_us": "100000",
            },
            2,
        ),
        (
            V1.format("/docker/x"),
            {
                "cpu,cpuacct/cpu.cfs_quota_us": "200000",
                "cpu,cpuacct/cpu.cfs_period_us": "100000",
            },
            2,
        ),
    ],
)
def test_it_is_the_least_of_cpus_and_quotas(
    tmp_path: Path, cgroup: str | None, files: dict[str, str], expected: int
) -> None:
    if cgroup is not None:
        files = {f"sys/fs/cgroup/{name}": text for name, text in files.items()}
        for name, text in {**files, "proc/self/cgroup": cgroup}.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)
    assert cpus.available(tmp_path) == expected
