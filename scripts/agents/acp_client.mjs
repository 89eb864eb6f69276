// An editor's side of the Agent Client Protocol, by its SDK as npm has it: a session in a folder, and a prompt.
//
// usage: acp_client.mjs SDK FOLDER PROMPT COMMAND...
//
// SDK is the folder of the package. COMMAND is what an editor starts. Prints one JSON object: the agent's name, whether a
// session began, what the agent said, the places of its tools' files, and what happened to a session elsewhere.

import { spawn } from "node:child_process"
import { readFile, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { PassThrough, Readable, Writable } from "node:stream"
import { pathToFileURL } from "node:url"

const [sdk, folder, prompt, command, ...words] = process.argv.slice(2)
const acp = await import(pathToFileURL(join(sdk, "dist/v1/stable/acp.js")))
const agent = spawn(command, words, { stdio: ["pipe", "pipe", "inherit"] })
const ended = new Promise((resolve) => agent.once("exit", (code, signal) => resolve(code ?? signal)))
// The SDK closes what it reads at the end of the conversation, and an agent may still have something to say then: it is
// read to its end, so that the exit code is the agent's.
const heard = new PassThrough()
agent.stdout.on("data", (piece) => heard.destroyed || heard.write(piece))
agent.stdout.on("end", () => heard.destroyed || heard.end())
const stream = acp.ndJsonStream(Writable.toWeb(agent.stdin), Readable.toWeb(heard))
const { methods } = acp
const seen = { said: "", places: [] }

const client = acp
  .client({ name: "test" })
  .onRequest(methods.client.session.requestPermission, ({ params }) => {
    const allowed = params.options.find((option) => option.kind.startsWith("allow"))
    return { outcome: { outcome: "selected", optionId: allowed.optionId } }
  })
  .onRequest(methods.client.fs.readTextFile, async ({ params }) => ({ content: await readFile(params.path, "utf8") }))
  .onRequest(methods.client.fs.writeTextFile, async ({ params }) => {
    await writeFile(params.path, params.content)
    return {}
  })
  .onNotification(methods.client.session.update, ({ params: { update } }) => {
    if (update.sessionUpdate === "agent_message_chunk") seen.said += update.content.text ?? ""
    seen.places.push(...(update.locations ?? []).map((location) => location.path))
  })

const result = await client.connectWith(stream, async (context) => {
  const capabilities = { fs: { readTextFile: true, writeTextFile: true }, terminal: true }
  const begun = await context.request(methods.agent.initialize, {
    protocolVersion: acp.PROTOCOL_VERSION,
    clientCapabilities: capabilities,
  })
  const open = (cwd) => context.request(methods.agent.session.new, { cwd, mcpServers: [] })
  const elsewhere = await open("/").then(() => "begun", (error) => error.message)
  const { sessionId } = await open(folder)
  let stop = null
  if (prompt) {
    const text = { type: "text", text: prompt }
    stop = (await context.request(methods.agent.session.prompt, { sessionId, prompt: [text] })).stopReason
  }
  return { agent: begun.agentInfo?.name, version: begun.protocolVersion, session: Boolean(sessionId), elsewhere, stop }
})
agent.stdin.end()
console.log(JSON.stringify({ ...result, ...seen, code: await ended }))
process.exit(0)
