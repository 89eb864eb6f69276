// Made by `banger agent install`; `--uninstall` removes it.
//
// Commands of the shell run in a machine. If banger cannot answer, the command fails.
import { spawnSync } from "node:child_process"
import { resolve } from "node:path"

const [program, ...words] = COMMAND
const top = words[words.indexOf("--host") + 1]

const rewritten = (command, cwd) => {
  const input = JSON.stringify({ tool_name: "shell", tool_input: { command }, cwd })
  const ran = spawnSync(program, words, { input, encoding: "utf8", timeout: 30000 })
  if (ran.error) throw new Error(`banger cannot be run: ${ran.error.message}`)
  if (ran.status !== 0) throw new Error(`banger blocks the command: ${ran.stderr}`)
  return JSON.parse(ran.stdout).hookSpecificOutput.updatedInput.command
}

const isShell = (tool) => ["bash", "shell"].includes(tool)

// The arguments of the shell's tool, changed. The folder is in the machine.
const change = (args, directory) => {
  args.command = rewritten(args.command, resolve(directory, args.workdir ?? ""))
  delete args.workdir
}

// Version 1 of opencode.
const server = async ({ directory }) => ({
  "tool.execute.before": async ({ tool }, { args }) => {
    if (isShell(tool)) change(args, directory)
  },
})

// Version 2. An error of a hook would end the whole turn there: a command that fails tells the
// model why.
const orFails = (rewrite, refuse) => {
  try {
    rewrite()
  } catch (error) {
    // No quote and no backslash, which shells read in different ways.
    const text = error.message.replace(/['\\\s]+/g, " ").trim()
    refuse(`echo '${text}' >&2; exit 1`)
  }
}

const setup = async (context) => {
  const directory = context.location?.directory ?? top
  if (context.shell?.hook) {
    // Each shell: those of the user's `!` commands too.
    await context.shell.hook("create.before", (event) => {
      const rewrite = () => (event.command = rewritten(event.command, resolve(directory, event.cwd)))
      orFails(rewrite, (line) => (event.command = line))
    })
    return
  }
  await context.tool.hook("execute.before", (event) => {
    if (!isShell(event.tool)) return
    const args = { ...event.input }
    orFails(() => change(args, directory), (line) => (args.command = line))
    event.input = args
  })
}

export default { id: "banger", server, setup }
