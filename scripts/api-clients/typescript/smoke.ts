// Uses the generated types against a daemon: create, list, an action, an error, delete.
//
//     node smoke.js SOCKET

import createClient from "openapi-fetch";
import { Agent, Request as UndiciRequest, fetch as undiciFetch } from "undici";

import type { components, paths } from "./banger.js";

const socketPath = process.argv[2];
if (!socketPath) throw new Error("usage: smoke.js SOCKET");
const dispatcher = new Agent({ connect: { socketPath } });

// One connection of Node.js to the daemon's socket; the types are those of the browser's `fetch`.
const client = createClient<paths>({
  baseUrl: "http://localhost",
  Request: UndiciRequest as unknown as typeof Request,
  fetch: (request: unknown) =>
    undiciFetch(request as UndiciRequest, { dispatcher }) as unknown as Promise<Response>,
});

function assert(condition: unknown, what: string): asserts condition {
  if (!condition) throw new Error(what);
}

// Waits for the end of an operation.
async function ended(operation: string): Promise<components["schemas"]["OperationView"]> {
  for (;;) {
    const { data } = await client.GET("/v1/operations/{operation}", {
      params: { path: { operation } },
    });
    assert(data, `there is no operation ${operation}`);
    if (data.state !== "running") return data;
    await new Promise((again) => setTimeout(again, 20));
  }
}

async function done(accepted: components["schemas"]["Accepted"] | undefined, kind: string) {
  assert(accepted?.operation, `${kind} was not accepted`);
  const operation = await ended(accepted.operation);
  assert(operation.state === "succeeded", `${kind}: ${operation.error?.message}`);
  assert(operation.kind === kind, `${operation.kind} is not ${kind}`);
}

const created = await client.POST("/v1/vms", {
  body: { name: "typescript", vcpus: 1, labels: { made: "by-types" } },
  params: { header: { "Idempotency-Key": "typescript-smoke" } },
});
assert(created.response.status === 202, `create: ${created.response.status}`);
await done(created.data, "create");

const list = await client.GET("/v1/vms", { params: { query: { filter: ["label=made"] } } });
assert(list.data?.length === 1 && list.data[0]?.state === "running", JSON.stringify(list));
const vm = list.data[0].id;

const stopped = await client.POST("/v1/vms/{vm}/actions", {
  params: { path: { vm } },
  body: { stop: { grace_ms: 1000 } },
});
await done(stopped.data, "stop");
const shown = await client.GET("/v1/vms/{vm}", { params: { path: { vm } } });
assert(shown.data?.stopped_because?.reason === "asked", JSON.stringify(shown.data));

const absent = await client.GET("/v1/vms/{vm}", { params: { path: { vm: "nosuch" } } });
assert(absent.error?.code === "not_found" && absent.error.status === 404, JSON.stringify(absent));
const kind = absent.response.headers.get("content-type");
assert(kind === "application/problem+json", `an error as ${kind}`);

const deleted = await client.POST("/v1/vms/{vm}/actions", {
  params: { path: { vm } },
  body: { delete: { force: true } },
});
await done(deleted.data, "delete");
await dispatcher.close();
console.log("ok");
