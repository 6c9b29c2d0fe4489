// The README's story, told by a typed client: every path, parameter, body and answer below is
// checked against the OpenAPI document when this is compiled.
//
//   TASKS_URL   where the service is, http://127.0.0.1:8000 by default
//   USER_ID     whose tasks these are
//   TOKEN       that user's JWT; leave it out where the service runs with AUTH_MODE=none

import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import createClient from "openapi-fetch";
import type { components, paths } from "./schema.js";

type Task = components["schemas"]["Task"];
type Problem = components["schemas"]["Problem"];

const { TASKS_URL = "http://127.0.0.1:8000", USER_ID: user_id = randomUUID(), TOKEN } = process.env;
const client = createClient<paths>({
  baseUrl: TASKS_URL,
  headers: TOKEN ? { Authorization: `Bearer ${TOKEN}` } : {},
});

/** What came, or an error with the problem that came instead. */
function take<T>(result: { data?: T; error?: Problem }): T {
  if (result.data === undefined) {
    throw new Error(result.error ? `${result.error.code}: ${result.error.detail}` : "no body");
  }
  return result.data;
}

/** The tag to send as If-Match or If-None-Match. */
function tag(response: Response): string {
  const value = response.headers.get("ETag");
  assert(value, "every task comes with an ETag");
  return value;
}

/** The cursor of the page that a Link header (RFC 8288) calls the next one. */
function nextCursor(response: Response): string | undefined {
  const link = response.headers.get("Link")?.match(/<([^>]*)>; rel="next"/)?.[1];
  return link && (new URL(link, TASKS_URL).searchParams.get("cursor") ?? undefined);
}

/** All tasks of the user, page by page. */
async function* allTasks(limit: number): AsyncGenerator<Task[]> {
  let cursor: string | undefined;
  do {
    const page = await client.GET("/api/{user_id}/tasks", {
      params: { path: { user_id }, query: { limit, ...(cursor && { cursor }) } },
    });
    yield take(page);
    cursor = nextCursor(page.response);
  } while (cursor);
}

// Create a task. The key makes it safe to send again when no answer came.
const create = () =>
  client.POST("/api/{user_id}/tasks", {
    params: { path: { user_id }, header: { "Idempotency-Key": key } },
    body: { title: "Buy milk" },
  });
const key = randomUUID();
const created = await create();
const task = take(created);
assert.deepEqual(take(await create()), task);
console.log(`created ${created.response.headers.get("Location")}`);

// List, page by page.
for (const title of ["Call Bob", "Water the plants", "Read a book", "Go for a walk"]) {
  take(await client.POST("/api/{user_id}/tasks", { params: { path: { user_id } }, body: { title } }));
}
const titles: string[] = [];
let pages = 0;
for await (const page of allTasks(2)) {
  titles.push(...page.map((task) => task.title));
  pages += 1;
}
assert.deepEqual(titles, [
  "Go for a walk",
  "Read a book",
  "Water the plants",
  "Call Bob",
  "Buy milk",
]);
console.log(`listed ${titles.length} tasks on ${pages} pages`);

// Get it, and later only if it has changed.
const path = { user_id, id: task.id };
const got = await client.GET("/api/{user_id}/tasks/{id}", { params: { path } });
assert.deepEqual(take(got), task);
const again = await client.GET("/api/{user_id}/tasks/{id}", {
  params: { path, header: { "If-None-Match": tag(got.response) } },
});
assert.equal(again.response.status, 304);
console.log("not sent again while unchanged");

// Replace it: what was got, with changes, is what can be put.
const replaced = await client.PUT("/api/{user_id}/tasks/{id}", {
  params: { path },
  body: { ...task, description: "Two bottles" },
});
assert.equal(take(replaced).description, "Two bottles");
console.log("replaced");

// Update it, but not over somebody else's change: 412 says that there was one.
const patch = (ifMatch: string) =>
  client.PATCH("/api/{user_id}/tasks/{id}", {
    params: { path, header: { "If-Match": ifMatch } },
    body: { title: "Buy oat milk" },
  });
let patched = await patch(tag(got.response));
assert.equal(patched.error?.code, "precondition_failed");
console.log("changed meanwhile, so look again");
patched = await patch(tag(patched.response));
assert.equal(take(patched).title, "Buy oat milk");

// Toggle it; then set it, which is safe to send again.
const toggled = await client.PATCH("/api/{user_id}/tasks/{id}/complete", { params: { path } });
assert.equal(take(toggled).is_completed, true);
for (const is_completed of [false, false]) {
  const set = await client.PATCH("/api/{user_id}/tasks/{id}/complete", {
    params: { path },
    body: { is_completed },
  });
  assert.equal(take(set).is_completed, is_completed);
}
console.log("completed, and open again");

// What is wrong, field by field, as a form shows it.
const refused = await client.POST("/api/{user_id}/tasks", {
  params: { path: { user_id } },
  body: { title: " ", description: "x".repeat(2001) },
});
assert.equal(refused.response.status, 422);
assert(refused.error?.code === "validation_error");
for (const { field, detail } of refused.error.errors ?? []) {
  console.log(`refused: ${field}: ${detail}`);
}
assert.deepEqual(
  refused.error.errors?.map((error) => [error.field, error.code]),
  [
    ["title", "blank"],
    ["description", "max_length"],
  ],
);

// Delete it.
const deleted = await client.DELETE("/api/{user_id}/tasks/{id}", { params: { path } });
assert.equal(deleted.response.status, 204);
const gone = await client.GET("/api/{user_id}/tasks/{id}", { params: { path } });
assert.equal(gone.error?.code, "not_found");
console.log("deleted");
