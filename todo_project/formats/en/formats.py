"""Django's hook for how times are shown, in the admin."""

DATETIME_FORMAT = "Y-m-d H:i:s T"
