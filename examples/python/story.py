"""The README's story in Python, with nothing but httpx (`pip install httpx`).

TASKS_URL   where the service is, http://127.0.0.1:8000 by default
USER_ID     whose tasks these are
TOKEN       that user's JWT; leave it out where the service runs with AUTH_MODE=none
"""

import os
import uuid
from collections.abc import Iterator

import httpx

USER_ID = os.environ.get("USER_ID") or str(uuid.uuid4())
TASKS = f"/api/{USER_ID}/tasks"
client = httpx.Client(base_url=os.environ.get("TASKS_URL") or "http://127.0.0.1:8000")
if token := os.environ.get("TOKEN"):
    client.headers["Authorization"] = f"Bearer {token}"


def pages(url: str) -> Iterator[list[dict]]:
    """Every page of a list: the Link header has the way to the next."""
    while url:
        page = client.get(url).raise_for_status()
        yield page.json()
        url = page.links.get("next", {}).get("url", "")


# Create a task. The key makes it safe to send again when no answer came.
key = {"Idempotency-Key": str(uuid.uuid4())}
created = client.post(TASKS, json={"title": "Buy milk"}, headers=key).raise_for_status()
again = client.post(TASKS, json={"title": "Buy milk"}, headers=key).raise_for_status()
assert again.json() == created.json()
task, url = created.json(), created.headers["Location"]
print("created", url)

# List, page by page.
for title in ["Call Bob", "Water the plants", "Read a book", "Go for a walk"]:
    client.post(TASKS, json={"title": title}).raise_for_status()
sizes = [len(page) for page in pages(f"{TASKS}?limit=2")]
assert sizes == [2, 2, 1]
print(f"listed {sum(sizes)} tasks on {len(sizes)} pages")

# Get it, and later only if it has changed.
got = client.get(url).raise_for_status()
assert client.get(url, headers={"If-None-Match": got.headers["ETag"]}).status_code == 304
print("not sent again while unchanged")

# Replace it: what was got, with changes, is what can be put.
client.put(url, json={**task, "description": "Two bottles"}).raise_for_status()
print("replaced")

# Update it, but not over somebody else's change: 412 says that there was one.
late = client.patch(url, json={"title": "Buy oat milk"}, headers={"If-Match": got.headers["ETag"]})
assert late.status_code == 412
print("changed meanwhile, so look again")
now = {"If-Match": late.headers["ETag"]}
client.patch(url, json={"title": "Buy oat milk"}, headers=now).raise_for_status()

# Toggle it; then set it, which is safe to send again.
assert client.patch(f"{url}/complete").raise_for_status().json()["is_completed"] is True
for _ in range(2):
    done = client.patch(f"{url}/complete", json={"is_completed": False}).raise_for_status()
    assert done.json()["is_completed"] is False
print("completed, and open again")

# What is wrong, field by field, as a form shows it.
refused = client.post(TASKS, json={"title": " ", "description": "x" * 2001})
assert refused.status_code == 422
for error in refused.json()["errors"]:
    print(f"refused: {error['field']}: {error['detail']}")

# Delete it.
client.delete(url).raise_for_status()
assert client.get(url).json()["code"] == "not_found"
print("deleted")
