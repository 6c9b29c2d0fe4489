"""Check the sample files of docs/ with the programs that use them: `python -m tools.samples_check`.

nginx checks docs/deployment/nginx.conf, promtool the alert rules and runs their tests. If a program
is missing, a line says so and the rest is checked.
"""

import os
import shutil
import subprocess
import sys
from contextlib import closing
from pathlib import Path

from tools.certificate import self_signed
from tools.servers import HOST, PROJECT_ROOT, Server, ServerError

MONITORING = PROJECT_ROOT / "docs" / "monitoring"


NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")
PROMTOOL = shutil.which("promtool")


class Nginx(Server):
    """nginx with the documented file, with other ports and paths."""

    name = "api.example.com"

    def __init__(self, upstream: int) -> None:
        super().__init__()
        key, certificate = self_signed(self.name)
        self._write("privkey.pem", key)
        self.certificate = self._write("fullchain.pem", certificate)
        site = (PROJECT_ROOT / "docs/deployment/nginx.conf").read_text()
        for documented, here in {
            "listen 443 ssl;": f"listen {HOST}:{self.port} ssl;",
            "    listen [::]:443 ssl;\n": "",
            "127.0.0.1:8000": f"{HOST}:{upstream}",
            f"/etc/letsencrypt/live/{self.name}": str(self.folder),
            "/var/log/nginx/todo.log": str(self.folder / "access.log"),
        }.items():
            assert documented in site, documented
            site = site.replace(documented, here)
        temporary = "".join(
            f"{kind}_temp_path {self.folder};"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        user = "user root;" if os.geteuid() == 0 else ""
        self._config = self._write(
            "nginx.conf",
            f"{user} daemon off; pid {self.folder}/pid; error_log stderr; events {{}}\n"
            f"http {{ {temporary} gzip on; gzip_types *; include {self._write('site', site)}; }}",
        )

    def check(self) -> None:
        """Let nginx check the file; raises `ServerError`."""
        # Without -e it would open its default error log, which not every user may write.
        assert NGINX
        done = self._run([NGINX, "-t", "-q", "-e", "stderr", "-c", self._config])
        if done.returncode:
            raise ServerError(done.stderr)

    def start(self) -> None:
        assert NGINX
        self._spawn([NGINX, "-e", "stderr", "-c", self._config], self._accepts)


def promtool(*arguments: str | Path, text: str | None = None) -> None:
    """Run promtool; raises `ServerError` with its output if it finds a fault."""
    assert PROMTOOL
    done = subprocess.run(
        [PROMTOOL, *arguments], input=text, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise ServerError(done.stdout + done.stderr)


def check_nginx() -> None:
    with closing(Nginx(upstream=8000)) as nginx:
        nginx.check()


def check_alerts() -> None:
    promtool("check", "rules", MONITORING / "alerts.yaml")
    promtool("test", "rules", MONITORING / "alerts_test.yaml")


def main() -> int:
    faults = 0
    for what, name, program, check in (
        ("docs/deployment/nginx.conf", "nginx", NGINX, check_nginx),
        ("docs/monitoring/alerts.yaml", "promtool", PROMTOOL, check_alerts),
    ):
        if program is None:
            sys.stdout.write(f"{what} is not checked: {name} is not installed\n")
            continue
        try:
            check()
        except ServerError as error:
            sys.stderr.write(f"{what}:\n{error}\n")
            faults += 1
    return min(faults, 1)


if __name__ == "__main__":
    sys.exit(main())
