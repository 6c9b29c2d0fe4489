"""The yardsticks: what the service costs, beside its peers, in one run on one machine."""
