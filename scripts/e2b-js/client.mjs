// Uses a sandbox of `banger serve --e2b` with E2B's SDK for JavaScript.
//
// usage: client.mjs PACKAGES

import assert from 'node:assert/strict'
import { createRequire } from 'node:module'
import { join } from 'node:path'

const require = createRequire(join(process.argv[2], 'package.json'))
const { CommandExitError, FileNotFoundError, Sandbox } = require('e2b')

const sandbox = await Sandbox.create({ timeoutMs: 300_000, metadata: { a: 'b' }, envs: { A: '1' } })
const parts = []
const ran = await sandbox.commands.run('echo $A; echo two >&2', { onStdout: (text) => parts.push(text) })
assert.deepEqual([ran.stdout, ran.stderr, ran.exitCode, parts], ['1\n', 'two\n', 0, ['1\n']])
await assert.rejects(sandbox.commands.run('exit 3'), (error) => {
  return error instanceof CommandExitError && error.exitCode === 3
})
const cat = await sandbox.commands.run('cat', { background: true, stdin: true })
assert.deepEqual((await sandbox.commands.list()).map((process) => process.pid), [cat.pid])
await sandbox.commands.sendStdin(cat.pid, 'in\n')
await sandbox.commands.closeStdin(cat.pid)
assert.equal((await cat.wait()).stdout, 'in\n')
const sleeping = await sandbox.commands.run('sleep 600', { background: true })
assert.equal(await sandbox.commands.kill(sleeping.pid), true)

const bytes = new Uint8Array(1 << 20).map((_, index) => index % 251)
await sandbox.files.write('/srv/a/bytes', bytes.buffer)
assert.deepEqual(await sandbox.files.read('/srv/a/bytes', { format: 'bytes' }), bytes)
const events = []
const watcher = await sandbox.files.watchDir('/srv/a', (event) => events.push(event.name))
await sandbox.files.write('/srv/a/text', 'é')
assert.equal(await sandbox.files.read('/srv/a/text'), 'é')
for (let tries = 0; tries < 600 && !events.includes('text'); tries++) {
  await new Promise((resolve) => setTimeout(resolve, 50))
}
assert.ok(events.includes('text'), String(events))
await watcher.stop()
assert.deepEqual((await sandbox.files.list('/srv/a')).map((entry) => entry.name), ['bytes', 'text'])
await sandbox.files.rename('/srv/a/text', '/srv/a/new')
assert.equal(await sandbox.files.exists('/srv/a/text'), false)
await assert.rejects(sandbox.files.read('/srv/a/text'), FileNotFoundError)
assert.match(sandbox.getHost(8000), /^8000-[a-z0-9]+\.localhost:\d+$/)

const again = await Sandbox.connect(sandbox.sandboxId)
assert.equal((await again.commands.run('echo 1')).stdout, '1\n')
const listed = await Sandbox.list({ query: { metadata: { a: 'b' } } }).nextItems()
assert.deepEqual(listed.map((one) => one.sandboxId), [sandbox.sandboxId])
assert.equal(await sandbox.kill(), true)
assert.equal(await sandbox.isRunning(), false)
console.log('ok')
process.exit(0)
