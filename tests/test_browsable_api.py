"""The browsable API: on the same URLs with DEBUG on, and only JSON with it off."""

import html
import json
import re
from typing import Any

import httpx
import pytest

from tests.client import BOB, NOBODYS, TASKS
from tests.database_plugin import open_live_server
from tests.values import MISSING

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


@pytest.fixture(scope="module")
def browser():
    """A browser at a server as `make run` starts it."""
    environment: Any = {"DEBUG": "true", "AUTH_MODE": "", "ALLOWED_HOSTS": "", "SECRET_KEY": ""}
    with (
        open_live_server("sqlite", **environment) as server,
        httpx.Client(base_url=server.base_url, headers={"Accept": BROWSER}, timeout=60) as client,
    ):
        yield client


def forms(page):
    """The raw-data forms of a page: by method, their address, media types and content."""
    assert page.headers["Content-Type"].startswith("text/html")
    found = {}
    for form in re.findall(r"<form\b.*?</form>", page.text, re.DOTALL):
        if content := re.search(r'name="_content" [^>]*>(.*?)</textarea>', form, re.DOTALL):
            [action] = re.findall(r'action="([^"]*)"', form)
            types = re.findall(r'<option value="(.*?)"', form)
            for method in re.findall(r'title="Make a (\w+) request', form):
                found[method] = action, types, json.loads(html.unescape(content[1]))
    return found


def submit(browser, form, method, **changes):
    """Send the content of a raw-data form as the page's script does."""
    action, types, content = form[method]
    assert types == ["application/json"]
    body = json.dumps({**content, **changes})
    return browser.request(method, action, content=body, headers={"Content-Type": types[0]})


@pytest.mark.live
def test_its_raw_data_forms_work_without_a_login(browser):
    list_page = browser.get(f"/api/{BOB}/tasks")
    assert list_page.status_code == 200
    assert "Log in" not in list_page.text
    created = submit(browser, forms(list_page), "POST", title="<b>Buy</b> 😀")
    assert created.status_code == 201
    assert created.headers["Content-Type"].startswith("text/html")
    assert "&lt;b&gt;Buy&lt;/b&gt; 😀" in created.text
    path = created.headers["Location"]
    page = browser.get(path)
    assert set(forms(page)) == {"PUT", "PATCH"}
    for method, title in (("PUT", "New"), ("PATCH", "Newer")):
        assert submit(browser, forms(page), method, title=title).status_code == 200
        assert browser.get(path, headers={"Accept": "application/json"}).json()["title"] == title
    # `complete` does not allow GET; the page of that error has the form.
    complete_page = browser.get(f"{path}/complete")
    assert complete_page.status_code == 405
    done = submit(browser, forms(complete_page), "PATCH", is_completed=True)
    assert "&quot;is_completed&quot;: true" in done.text
    assert submit(browser, forms(complete_page), "PATCH", is_completed=1).status_code == 422
    # A browser shows no page for a 204, so REST framework sends a page about it.
    assert "HTTP 204 No Content" in browser.delete(path).text
    assert browser.delete(path).status_code == 404


def linked(page, text):
    """The target of the link with this text."""
    return html.unescape(re.findall(rf'<a [^>]*href="([^"]*)"[^>]*>{re.escape(text)}</a>', page)[0])


@pytest.mark.live
@pytest.mark.parametrize("slash", ["", "/"])
def test_its_pages_link_to_each_other(browser, slash):
    hostile = '"id": "x\n    "id": "y <https://x.example/?a=1&b=2>'
    ids = [browser.post(TASKS, json={"title": title}, headers={"Accept": "*/*"}).json()["id"]
           for title in ("Buy milk", hostile)]  # fmt: skip
    page = browser.get(f"{TASKS}{slash}?limit=1")
    body = page.text.partition("</span>[")[2].partition("</pre>")[0]
    assert re.findall(r'<a href="(/.*?)"', body) == [f"{TASKS}/{ids[1]}"]  # none from the title
    following = re.findall(r'<a href="([^"]*cursor[^"]*)"', page.text)[0]
    assert ids[0] in browser.get(html.unescape(following)).text
    for id in ids:
        browser.delete(linked(browser.get(TASKS).text, id))
    assert "[]" in browser.get(TASKS).text


@pytest.mark.live
def test_a_form_holds_the_tasks_values_or_those_that_were_refused(browser):
    task = {"title": 'Buy "milk"', "description": None, "is_completed": True}
    path = browser.post(f"/api/{BOB}/tasks", json=task).headers["Location"]
    held = {method: form[2] for method, form in forms(browser.get(path)).items()}
    assert held == {"PUT": task, "PATCH": task}
    refused = browser.put(path, json={**task, "title": "", "description": "kept"})
    assert refused.status_code == 422
    assert forms(refused)["PUT"][2] == {**task, "title": "", "description": "kept"}
    browser.delete(path)


@pytest.mark.live
def test_complete_can_be_reached_from_a_task(browser):
    path = browser.post(f"/api/{BOB}/tasks", json={"title": "x"}).headers["Location"]
    button = (
        rf'action="[^"]*({path}/complete)" data-method="PATCH">\s*<button[^>]*>Complete or reopen<'
    )
    for state in (True, False):
        page = browser.patch(re.findall(button, browser.get(path).text)[0])
        assert page.status_code == 200
        assert f"&quot;is_completed&quot;: {str(state).lower()}" in page.text
        assert linked(page.text, "Task") == path
    browser.delete(path)


@pytest.mark.live
@pytest.mark.parametrize("path", [TASKS, MISSING, f"{MISSING}/complete", "/api/1/tasks/2"])
def test_it_has_its_own_title_and_no_inline_code(browser, path):
    page = browser.get(path)
    assert re.search(r"<title>(Tasks?|Complete) \u2013 Tasks</title>", page.text)
    assert "Django REST framework" not in page.text
    policy = page.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    code = re.findall(
        r"<script(?![^>]*(?:src=|application/json))|<style|\s(?:on\w+|style)=", page.text
    )
    assert code == []


@pytest.mark.live
def test_its_script_gets_a_page_for_an_answer(browser):
    accept = {"Accept": "text/html; q=1.0, */*"}
    answer = browser.post(TASKS, json={"title": ""}, headers=accept)
    assert (answer.status_code, answer.headers["Content-Type"][:9]) == (422, "text/html")


@pytest.mark.live
@pytest.mark.parametrize("slash", ["", "/"])
def test_errors_are_shown_in_the_page(browser, slash):
    for method, path, body, status in (
        ("GET", f"{TASKS}{slash}?limit=0", None, 400),
        ("GET", MISSING + slash, None, 404),
        ("GET", f"/api/1/tasks{slash}", None, 400),
        ("GET", f"{MISSING}/complete{slash}", None, 405),
        ("POST", TASKS + slash, {"title": ""}, 422),
        ("PATCH", f"{MISSING}/complete{slash}", {}, 422),
    ):
        page = browser.request(method, path, json=body)
        assert (path, page.status_code) == (path, status)
        assert page.headers["Content-Type"].startswith("text/html")
        assert page.headers["X-Request-ID"]
        assert "about:blank" in page.text


@pytest.mark.live
def test_form_posts_are_415(browser):
    for form in ({"data": {"title": "x"}}, {"files": {"title": ("x", b"x")}}):
        for path in (TASKS, TASKS + "/"):
            page = browser.post(path, **form)
            assert page.status_code == 415
            # Nor does a form smuggle in another method, or a body of another type.
            data = {"_method": "DELETE", "_content": "{}", "_content_type": "application/json"}
            assert browser.post(path, data=data).status_code == 415
    assert browser.get(TASKS, headers={"Accept": "application/json"}).json() == []


@pytest.mark.live
def test_programs_still_get_json(browser):
    for accept in ("*/*", "application/json", "application/*;q=0.5, text/*;q=0.1"):
        answer = browser.get(TASKS, headers={"Accept": accept})
        assert (answer.json(), answer.headers["Content-Type"]) == ([], "application/json")
        assert "accept" in answer.headers["Vary"].lower()
        problem = browser.get(MISSING, headers={"Accept": accept})
        assert problem.headers["Content-Type"] == "application/problem+json"
    assert browser.get("/healthz").json() == {"status": "ok"}


@pytest.mark.live
def test_its_files_are_served_here(browser):
    page = browser.get(TASKS)
    files = set(re.findall(r'(?:src|href)="(/static/.*?)"', page.text))
    assert any(file.endswith("ajax-form.js") for file in files)
    for file in files:
        assert browser.get(file).status_code == 200
    assert not re.findall(r'(?:src)="(?:https?:)?//', page.text)


def test_with_debug_off_there_is_only_json(api):
    task = api.create()
    for path in (TASKS, f"{TASKS}/{task['id']}", f"{TASKS}/{NOBODYS}"):
        assert api.get(path, 406, headers={"Accept": "text/html"})["code"] == "not_acceptable"
    assert api.get(TASKS, headers={"Accept": BROWSER}) == [task]
    assert api.last["Content-Type"] == "application/json"
    assert api.get(MISSING, 404, headers={"Accept": BROWSER})["code"] == "not_found"
    # REST framework's switch in the URL is one more unknown parameter.
    assert api.get(f"{TASKS}?format=api", 400)["code"] == "invalid_parameter"
