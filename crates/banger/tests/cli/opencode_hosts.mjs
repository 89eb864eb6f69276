// usage: node opencode_hosts.mjs PLUGIN FOLDER COMMAND WORKDIR
//
// Loads a plugin as each version of opencode does, asks it before one command of the shell, and
// prints what would run: one JSON object in each line. The calls are those of opencode 1.18.33,
// of the preview of version 2 (July 2026), and of 2.0.21, from their sources.
import { pathToFileURL } from "node:url"

const [plugin, directory, command, workdir] = process.argv.slice(2)
const definition = (await import(pathToFileURL(plugin))).default

const say = (version, fields) => console.log(JSON.stringify({ version, ...fields }))
const loads = (name) => {
  // The loader of version 2 refuses anything but an object; that of version 1 calls `server`.
  if (typeof definition !== "object" || typeof definition[name] !== "function") throw new Error(name)
  if (typeof definition.id !== "string") throw new Error("id")
  return definition[name]
}

const first = await loads("server")({ directory, worktree: directory })
const args = { command, workdir, description: "a test" }
try {
  await first["tool.execute.before"]({ tool: "bash", sessionID: "s", callID: "c" }, { args })
  say("1.18", args)
} catch (error) {
  say("1.18", { error: error.message })
}
const read = { filePath: "README" }
await first["tool.execute.before"]({ tool: "read", sessionID: "s", callID: "c" }, { args: read })
say("read", read)

// A hook gets an event that it may change; the commands of these tools run with the input after it.
const hooks = (names) => {
  const found = new Map()
  const domain = (domain) => ({
    hook: async (name, callback) => {
      found.set(`${domain}.${name}`, callback)
      return { dispose: async () => found.delete(`${domain}.${name}`) }
    },
  })
  const context = Object.fromEntries(names.map((name) => [name, domain(name)]))
  return { found, context: { options: {}, ...context } }
}

const preview = hooks(["tool"])
await loads("setup")(preview.context)
const event = { tool: "shell", sessionID: "s", agent: "build", input: Object.freeze({ command, workdir }) }
await preview.found.get("tool.execute.before")(event)
say("2-preview", event.input)

const second = hooks(["tool", "shell"])
second.context.location = { directory, project: { directory } }
await loads("setup")(second.context)
const invocation = { command, cwd: `${directory}/${workdir}`, timeout: 120000, shell: "/bin/bash", env: {} }
for (const name of ["tool.execute.before", "shell.create.before"]) {
  // The tool's hook comes first; a command must not be changed twice.
  const event = name.startsWith("tool") ? { tool: "shell", input: { command, workdir } } : invocation
  await second.found.get(name)?.(event)
  if (name.startsWith("tool")) invocation.command = event.input.command
}
say("2.0", { command: invocation.command })
