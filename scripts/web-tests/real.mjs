// Drives the web page with a real machine: creates it, uses its terminal, looks at hostile output of
// the guest, and deletes it.
//
//   node real.mjs LINK      with the packages of package.json in BANGER_WEB_TESTS/node_modules
//
// When the terminal was used it prints `used` and waits for a line: the machine can be used for
// other tests meanwhile.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { drive } from './driver.mjs';

const [link] = process.argv.slice(2);
const {
  browser, page, nothingWrong, accessible, press, type, screen, heading, state, succeeded,
} = await drive(link, { width: 1440, height: 900 }, 'dark', 300_000);

await page.goto(link);
await heading('Machines');
await press('New machine');
await heading('New machine');
await type('Name', 'web');
await page.keyboard.press('Enter');
await succeeded();
await accessible('the finished create of a real machine');
await press('Open web');
await heading('web');
await state('running');

// ---- The terminal ---------------------------------------------------------------------------

await press('Shell');
await page.locator('#status[data-state="ready"]').waitFor();
const run = (line) => page.keyboard.type(`${line}\n`);
await run('echo "täst $((6 * 7))"');
await screen('täst 42');
await run('stty size');
await screen(await page.evaluate(() => `${window.bangerTerminal.rows} ${window.bangerTerminal.cols}`));
// Output of many megabytes arrives whole.
await run('seq 300000; echo "sum $((300000 + 1))"');
await screen('sum 300001');
// A title, a link, a request for an answer, and markup: in the terminal and on the console.
const title = await page.title();
await run(String.raw`evil='\033]0;owned\007\033]8;;http://evil.example/\007link\033]8;;\007\033[5i<img src=x onerror=alert(1)><style>*{display:none}</style>'`);
await run('printf "$evil\\r\\n"; echo "after $((1 + 1))"');
await screen('after 2');
// The console's log is no terminal, which would answer the request for the place of the cursor.
await run('printf "\\033[6n$evil\\r\\nconsole-end\\r\\n" >/dev/console; echo "written $((1 + 2))"');
await screen('written 3');
assert.equal(await page.title(), title, 'the guest has changed the title');
assert.equal(await page.locator('img, main style').count(), 0, 'markup of the guest');
nothingWrong('the terminal');
// The way out leads to the link of the machine.
await page.keyboard.press('Control+Shift+Escape');
await page.keyboard.press('Enter');
await heading('web');
const log = page.locator('#console');
await log.filter({ hasText: 'console-end' }).waitFor();
const text = await log.textContent();
assert.ok(text.includes('link<img src=x onerror=alert(1)><style>*{display:none}</style>'), text.slice(-500));
assert.ok(!/[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/.test(text), 'control characters');
assert.equal(await page.locator('main img, main style').count(), 0, 'markup of the guest');
await accessible('a real machine');

console.log('used');
await once(process.stdin, 'data');

// ---- The end ----------------------------------------------------------------------------------

await press('Delete');
await page.getByRole('dialog').waitFor();
await page.keyboard.press('Tab');
await page.keyboard.press('Enter');
await heading('Machines');
await page.getByText('There is no machine yet.').waitFor();
nothingWrong('the end');
await browser.close();
process.exit(0);
