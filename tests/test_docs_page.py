"""/api/docs and the admin in a real browser, under their strict Content-Security-Policy.

Every test fails on an error in the console, a violation of the policy, or a request to another
host. Screenshots go to the test's folder, or to that named in SCREENSHOTS.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Locator, Page, expect, sync_playwright

from tests.client import ALICE
from tests.database_plugin import LiveServer, manage, open_live_server, require
from tests.issuer import SECRET, bearer, by_secret
from tests.live import Client
from todo_project.first_steps import SAMPLE_USER

pytestmark = pytest.mark.live

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
# As root Chromium has no sandbox, and it talks to the service alone.
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
ARGUMENTS += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
REPORT_VIOLATIONS = """
    document.addEventListener("securitypolicyviolation", (event) =>
        console.error(`policy violated: ${event.violatedDirective} by ${event.blockedURI}`));
"""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    require(program, PROGRAMS[0], PROGRAMS[0])
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=program, args=ARGUMENTS, timeout=60_000)


@pytest.fixture
def page(chromium: Browser, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Page]:
    """A page; errors in it fail the test."""
    context = chromium.new_context(viewport={"width": 1280, "height": 1000})
    context.add_init_script(REPORT_VIOLATIONS)
    complaints: list[str] = []
    origins: set[str] = set()

    def hear(message: ConsoleMessage) -> None:
        # Chromium asks for an icon, and the admin has none.
        if message.type in ("error", "warning") and "favicon.ico" not in message.location["url"]:
            complaints.append(message.text)

    context.set_default_timeout(60_000)
    expect.set_options(timeout=60_000)  # 5 s are not always enough on a busy machine
    context.on("console", hear)  # of pop-ups as well
    context.on("weberror", lambda error: complaints.append(str(error.error)))
    context.on("request", lambda sent: origins.add("/".join(sent.url.split("/")[:3])))
    page = context.new_page()
    yield page
    folder = Path(os.environ.get("SCREENSHOTS") or tmp_path)
    page.screenshot(path=folder / f"{request.node.name}.png")
    context.close()
    assert complaints == []
    assert len({origin for origin in origins if not origin.startswith("data:")}) == 1


@pytest.fixture(scope="module")
def server() -> Iterator[LiveServer]:
    with open_live_server(AUTH_MODE="jwt", JWT_SECRET=SECRET, WEB_CONCURRENCY="1") as server:
        yield server


def test_try_it_out_works_with_a_token(server: LiveServer, page: Page) -> None:
    page.goto(f"{server.base_url}/api/docs/")
    give_token(page)
    page.get_by_role("button", name="Close").click()

    operation = page.locator("#operations-tasks-createTask")
    operation.locator(".opblock-summary-control").click()
    operation.get_by_placeholder("user_id").fill(ALICE)
    operation.get_by_role("button", name="Execute").click()
    answer = operation.locator(".live-responses-table")
    expect(answer.locator(".response-col_status").last).to_contain_text("201")
    expect(answer).to_contain_text('"title": "Buy milk"')
    answer.scroll_into_view_if_needed()
    with Client(server) as client:
        listed = client.ask("GET", f"/api/{ALICE}/tasks", headers=bearer(by_secret())).json()
    assert [task["title"] for task in listed] == ["Buy milk"]


def test_a_reload_forgets_the_token(server: LiveServer, page: Page) -> None:
    page.goto(f"{server.base_url}/api/docs")
    give_token(page)
    assert page.evaluate("localStorage.length + sessionStorage.length") == 0
    page.reload()
    page.get_by_role("button", name="Authorize").click()
    expect(token_input(page)).to_have_value("")


def token_input(page: Page) -> Locator:
    return page.locator(".auth-container input")


def give_token(page: Page) -> None:
    page.get_by_role("button", name="Authorize").click()
    token_input(page).fill(by_secret())
    page.get_by_label("Apply credentials").click()
    expect(page.locator(".auth-container")).to_contain_text("Authorized")


def test_the_browsable_api_works_under_its_policy(
    live_server_factory: Callable[..., LiveServer], page: Page
) -> None:
    server = live_server_factory("sqlite", DEBUG="true")
    with Client(server) as client:
        client.ask("POST", f"/api/{SAMPLE_USER}/tasks", {"title": "Buy milk"})
    page.goto(server.base_url)
    page.get_by_role("link", name="Browsable API").click()
    page.locator("pre a").click()
    content = page.get_by_label("Content:")
    expect(content).to_have_value(re.compile('"title": "Buy milk"'))
    content.fill(content.input_value().replace("milk", "bread"))
    page.get_by_role("button", name="PUT").click()
    expect(page.locator(".response-info")).to_contain_text('"title": "Buy bread"')
    page.get_by_role("button", name="Complete or reopen").click()
    expect(page.locator(".response-info")).to_contain_text('"is_completed": true')
    page.locator(".breadcrumb").get_by_role("link", name="Task", exact=True).click()
    expect(page.locator(".response-info")).to_contain_text('"is_completed": true')
    page.get_by_text("DELETE", exact=True).click()
    page.get_by_role("button", name="Delete for good").click()
    expect(page.locator(".response-info")).to_contain_text("HTTP 204")


def test_the_admin_works_under_its_policy(
    live_server_factory: Callable[..., LiveServer], page: Page
) -> None:
    server = live_server_factory(DEBUG="true")
    log_in(server, page)
    page.get_by_role("link", name="Users").click()
    page.get_by_role("link", name="operator").click()
    page.locator("#calendarlink0").click()
    page.locator("#calendarbox0").get_by_role("link", name="17", exact=True).click()
    assert page.locator("#id_last_login_0").input_value().endswith("-17")
    with page.expect_popup() as popup:
        page.locator("#add_id_groups").click()
    popup.value.get_by_label("Name:").fill("Editors")
    popup.value.get_by_role("button", name="Save").click()
    expect(page.locator("#id_groups_to")).to_contain_text("Editors")

    page.get_by_role("link", name="View site").click()
    expect(page.locator("#operations-tasks-createTask")).to_be_visible()


OTHERS, MANY = 50_000, 12_000


def test_an_operator_finds_completes_exports_and_erases(
    live_server_factory: Callable[..., LiveServer], page: Page
) -> None:
    server = live_server_factory(DEBUG="true")
    fill(server)
    log_in(server, page)
    page.get_by_role("link", name="Tasks", exact=True).last.click()
    expect(page.locator(".prompt")).to_contain_text("Paste a user's id")
    search(page, "milk")
    expect(page.locator(".prompt")).to_contain_text("“milk” is not an id")

    search(page, f"{ALICE} milk 1777")
    rows = page.locator("#result_list tbody tr")
    expect(rows).to_have_count(2)  # and 11777
    page.get_by_role("link", name="Buy milk 1777", exact=True).click()
    page.get_by_label("Completed").check()
    page.get_by_role("button", name="Save", exact=True).click()
    expect(success(page)).to_contain_text("was changed successfully")

    # A client changes the title while the operator's form is open.
    page.get_by_role("link", name="Buy milk 1777", exact=True).click()
    page.wait_for_url("**/change/**")
    id = page.url.split("/")[-3]
    with Client(server) as client:
        client.ask("PATCH", f"/api/{ALICE}/tasks/{id}", {"title": "Buy oat milk"})
    page.get_by_label("Title").fill("Buy soy milk")
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.locator(".errorlist:not(.nonfield)")).to_contain_text(
        "it is “Buy oat milk” now, and was “Buy milk 1777” when you opened the page"
    )
    keep(page, "admin-conflict", 820)
    page.get_by_role("button", name="Save", exact=True).click()
    expect(success(page)).to_contain_text("was changed successfully")

    search(page, id)
    page.get_by_role("link", name="Buy soy milk").click()
    page.get_by_role("link", name=ALICE).click()
    expect(page.locator(".owner")).to_contain_text(f"{MANY - 1} open, 1 completed")
    expect(rows).to_have_count(100)
    page.locator("#changelist-filter").get_by_role("link", name="No", exact=True).click()
    keep(page, "admin-list", 560)
    select_all(page, MANY - 1)
    act(page, "Mark as completed")
    expect(success(page)).to_contain_text(f"{MANY - 1:,} tasks marked as completed.")
    expect(page.locator(".owner")).to_contain_text(f"0 open, {MANY} completed")

    page.locator(".owner").get_by_role("link", name=ALICE).click()
    select_all(page, MANY)
    with page.expect_download() as download:
        act(page, "Export as JSON")
    exported = json.loads(Path(download.value.path()).read_bytes())
    assert len({task["id"] for task in exported}) == MANY
    assert all(task["user_id"] == ALICE and task["is_completed"] for task in exported)

    page.get_by_role("link", name="Erase this user").click()
    page.get_by_label("The user's id").fill(SAMPLE_USER)
    page.get_by_role("button", name=f"Erase {MANY:,} tasks").click()
    expect(page.locator(".errorlist")).to_contain_text("This is not the id of the user above.")
    keep(page, "admin-erase", 560)
    page.get_by_label("The user's id").fill(ALICE)
    page.get_by_role("button", name=f"Erase {MANY:,} tasks").click()
    expect(success(page)).to_contain_text(f"{MANY:,} tasks of user {ALICE} erased.")
    search(page, ALICE)
    expect(page.locator(".prompt")).to_contain_text("of no user who has tasks")
    left = server.postgres.execute("SELECT count(*) FROM tasks_task", database=server.database)
    assert left == [(OTHERS,)]
    page.goto(f"{server.base_url}/admin/")
    expect(page.locator("#recent-actions-module")).to_contain_text(f"Tasks of user {ALICE}")


def fill(server: LiveServer) -> None:
    """Insert many tasks of many users, and many of Alice."""
    for number, owner in ((OTHERS, "md5((n % 2000)::text)::uuid"), (MANY, f"'{ALICE}'::uuid")):
        server.postgres.execute(
            f"""INSERT INTO tasks_task (id, user_id, title, is_completed, created_at, updated_at)
            SELECT gen_random_uuid(), {owner}, CASE n % 2 WHEN 1 THEN 'Buy milk ' ELSE 'Call Bob '
            END || n, false, t, t FROM generate_series(1, {number}) n,
            LATERAL (SELECT now() - n * interval '1 minute' AS t) times""",
            database=server.database,
        )
    server.postgres.execute("ANALYZE tasks_task", database=server.database)


def log_in(server: LiveServer, page: Page) -> None:
    # Needs DEBUG: over plain HTTP a browser does not send a Secure cookie.
    create_operator(server)
    page.goto(f"{server.base_url}/admin/")
    page.get_by_label("Username:").fill("operator")
    page.get_by_label("Password:").fill("correct horse battery")
    page.get_by_role("button", name="Log in").click()


def search(page: Page, text: str) -> None:
    page.locator("#searchbar").fill(text)
    page.get_by_role("button", name="Search").click()


def select_all(page: Page, number: int) -> None:
    """Select the tasks of all pages, with the admin's JavaScript."""
    page.locator("#action-toggle").check()
    page.get_by_role("button", name=f"Select all {number} tasks").click()
    expect(page.locator(".actions .all")).to_contain_text(f"All {number} selected")


def act(page: Page, action: str) -> None:
    page.get_by_label("Action:").select_option(action)
    page.get_by_role("button", name="Go").click()


def success(page: Page) -> Locator:
    return page.locator(".messagelist .success")


def keep(page: Page, name: str, height: int) -> None:
    """A screenshot for the documentation."""
    page.set_viewport_size({"width": 1400, "height": height})
    if folder := os.environ.get("SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"{name}.png")


def create_operator(server: LiveServer) -> None:
    name = ("--username=operator", "--email=operator@example.com")
    password = {"DJANGO_SUPERUSER_PASSWORD": "correct horse battery"}
    manage(server.database_url, "createsuperuser", "--no-input", *name, **password)
