"""`manage.py purge`: delete what has expired, for a daily job."""

from typing import Any

from axes.helpers import get_cool_off
from axes.models import AccessAttempt
from django.core.management import call_command
from django.core.management.base import BaseCommand
from django.utils import timezone


class Command(BaseCommand):
    help = "Delete operators' expired sessions, and failed logins that no longer count."

    def handle(self, *args: Any, **options: Any) -> None:
        call_command("clearsessions")
        expired = AccessAttempt.objects.filter(attempt_time__lt=timezone.now() - get_cool_off())
        deleted, _ = expired.delete()
        self.stdout.write(f"Expired sessions and {deleted} failed logins deleted.")
