// Drives the web page in Chromium by keyboard, as a user would, and checks each page with axe-core.
//
//   node flows.mjs LINK     with the packages of package.json in BANGER_WEB_TESTS/node_modules
//
// The daemon works on the simulated host. The first failed check ends the program with its text.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';

const require = createRequire(path.join(process.env.BANGER_WEB_TESTS, 'package.json'));
const { chromium } = require('playwright-core');
const axe = readFileSync(require.resolve('axe-core/axe.min.js'), 'utf8');

const [link] = process.argv.slice(2);
const origin = new URL(link).origin;
const browser = await chromium.launch({
  executablePath: process.env.BANGER_CHROMIUM ?? '/usr/bin/chromium',
  args: ['--no-sandbox', '--disable-gpu'],
});
const context = await browser.newContext({ viewport: { width: 1440, height: 900 } });
context.setDefaultTimeout(60_000);
const page = await context.newPage();

// Any violation of the page's policy, error of a script or request to elsewhere fails the test.
const wrong = [];
page.on('pageerror', (error) => wrong.push(`script: ${error.message}`));
page.on('dialog', (dialog) => wrong.push(`a script of a guest ran: ${dialog.message()}`));
page.on('console', (message) => {
  // Answers 4xx of forms that are refused on purpose are logged as errors, too.
  const text = message.text();
  if (message.type() === 'error' && !text.includes('the server responded with a status of 4')) {
    wrong.push(`console: ${text}`);
  }
});
page.on('request', (request) => {
  if (new URL(request.url()).origin !== origin) wrong.push(`request: ${request.url()}`);
});
function nothingWrong(where) {
  assert.deepEqual(wrong, [], where);
}

const SERIOUS = ['serious', 'critical'];

/** axe-core in both colour schemes; nothing that it calls serious may be there. */
async function accessible(where) {
  for (const colorScheme of ['light', 'dark']) {
    await page.emulateMedia({ colorScheme });
    // A page's policy forbids inline scripts: axe is evaluated by the debugger instead.
    await page.evaluate(axe);
    const { violations } = await page.evaluate(() => window.axe.run(document));
    const found = violations.filter(({ impact }) => SERIOUS.includes(impact)).map(
      ({ id, nodes }) => `${id}: ${nodes.map((node) => node.html).slice(0, 3).join(' | ')}`,
    );
    assert.deepEqual(found, [], `${where}, ${colorScheme}`);
  }
  nothingWrong(where);
}

/** No page is wider than the window. */
async function fits(where) {
  const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
  assert.ok(wide <= 0, `${where} is ${wide} px too wide`);
}

/** Presses Tab until the focus is on a control with this text or label, which must be visible. */
async function tabTo(text) {
  for (let presses = 0; presses < 80; presses += 1) {
    await page.keyboard.press('Tab');
    const at = await page.evaluate(() => {
      const active = document.activeElement;
      const label = active.getAttribute('aria-label') ?? active.labels?.[0]?.textContent;
      const outline = getComputedStyle(active).outlineStyle;
      return { text: (label ?? active.textContent ?? '').trim(), outline };
    });
    if (at.text === text) {
      assert.notEqual(at.outline, 'none', `the focus on ${text} is not visible`);
      return;
    }
  }
  throw new Error(`Tab does not reach ${text}`);
}

async function press(text) {
  await tabTo(text);
  await page.keyboard.press('Enter');
}

const heading = (name) => page.getByRole('heading', { level: 1, name }).waitFor();
const state = (name) => page.locator('#vm-head .state', { hasText: name }).waitFor();
const succeeded = () => page.locator('#progress[data-state="succeeded"]').waitFor();

// ---- In, and the empty list -----------------------------------------------------------------

await page.goto(link);
await heading('Machines');
await page.getByText('There is no machine yet.').waitFor();
await accessible('the empty list');

// ---- A create that fails, and one that does not ---------------------------------------------

await press('New machine');
await heading('New machine');
await accessible('the form');
await page.getByLabel('Name').fill('Bad_Name');
await page.keyboard.press('Enter');
const alert = page.locator('#error');
await alert.filter({ hasText: '`Bad_Name` is not a VM name' }).waitFor();
assert.equal(await page.evaluate(() => document.activeElement.id), 'error', 'the error has the focus');
assert.equal(await page.getByLabel('Name').inputValue(), 'Bad_Name');
await accessible('the refused form');
await page.getByLabel('Name').fill('web');
await page.getByLabel('Labels').fill('x=<img/src=x/onerror=alert(1)>');
await page.keyboard.press('Enter');
await succeeded();
await accessible('the finished operation');
await press('Open web');
await heading('web');
await state('running');
await accessible('the machine');

// ---- A shell --------------------------------------------------------------------------------

await press('Shell');
await page.locator('#status[data-state="ready"]').waitFor();
const screen = (text) => page.waitForFunction((wanted) => {
  const { active } = window.bangerTerminal.buffer;
  for (let row = active.length - 1; row >= 0; row -= 1) {
    if (active.getLine(row)?.translateToString(true) === wanted) return true;
  }
  return false;
}, text);
await page.keyboard.type('echo "täst <b> €"\n');
await screen('täst <b> €');
await accessible('the terminal');
// The guest has the size of the terminal, also after a change.
for (const width of [1000, 1440]) {
  const cols = await page.evaluate(() => window.bangerTerminal.cols);
  await page.setViewportSize({ width, height: 700 });
  await page.waitForFunction((before) => window.bangerTerminal.cols !== before, cols);
  await page.keyboard.type('stty size\n');
  await screen(await page.evaluate(() => `${window.bangerTerminal.rows} ${window.bangerTerminal.cols}`));
}
// Pasted text reaches the guest as it is; selected text is copied.
await context.grantPermissions(['clipboard-read', 'clipboard-write'], { origin });
await page.evaluate(() => navigator.clipboard.writeText('echo pasted-ü'));
await page.keyboard.press('Control+Shift+V');
await page.keyboard.press('Enter');
await screen('pasted-ü');
await page.evaluate(() => window.bangerTerminal.selectAll());
await page.keyboard.press('Control+Shift+C');
await page.waitForFunction(async () => (await navigator.clipboard.readText()).includes('pasted-ü'));
// 10 MB of output: each byte arrives, and the page draws meanwhile.
await page.evaluate(() => {
  window.frames = 0;
  const count = () => { window.frames += 1; requestAnimationFrame(count); };
  requestAnimationFrame(count);
});
const before = await page.evaluate(() => window.frames);
await page.keyboard.type('seq 1300000\n');
await screen('1300000');
assert.ok(await page.evaluate(() => window.frames) > before + 10, 'the page froze');
// The way out by keyboard, and the end of the shell.
await page.keyboard.press('Control+Shift+Escape');
assert.equal(await page.evaluate(() => document.activeElement.textContent), 'web');
await page.evaluate(() => window.bangerTerminal.focus());
await page.keyboard.type('exit 3\n');
await page.locator('#status', { hasText: 'exit code 3' }).waitFor();
await page.setViewportSize({ width: 1440, height: 900 });
await page.keyboard.press('Control+Shift+Escape');
await page.goto(`${origin}/vms/web`);

// ---- A port, a stop, a delete ---------------------------------------------------------------

await press('Publish a port');
await tabTo('Host port:guest port');
await page.keyboard.type('0:80');
await page.keyboard.press('Enter');
await page.getByRole('alert').filter({ hasText: 'port' }).waitFor();
await press('Publish a port');
await tabTo('Host port:guest port');
await page.keyboard.type(`${process.env.BANGER_FREE_PORT}:80`);
await page.keyboard.press('Enter');
const published = page.locator('#vm-ports a');
await published.waitFor();
// Under another name than the page's own, so that the guest does not get its cookie.
assert.match(await published.getAttribute('href'), /^http:\/\/localhost:\d+\/$/);
await press('Stop');
await state('stopped');
await accessible('the stopped machine');
await press('Delete');
const dialog = page.getByRole('dialog');
await dialog.waitFor();
await accessible('the question');
await page.keyboard.press('Escape');
await dialog.waitFor({ state: 'hidden' });
assert.equal(await page.evaluate(() => document.activeElement.value), 'delete', 'the focus is back');
await page.keyboard.press('Enter');
await page.keyboard.press('Tab');
await page.keyboard.press('Enter');
await heading('Machines');
await page.getByText('There is no machine yet.').waitFor();

// ---- Images, operations, host ---------------------------------------------------------------

await press('Images');
await heading('Images');
await tabTo('Recipe or reference');
await page.keyboard.type('ghcr.io/acme/app:1');
await page.keyboard.press('Enter');
await succeeded();
await press('Images');
await page.getByRole('link', { name: 'ghcr.io/acme/app:1' }).waitFor();
await accessible('the images');
await page.goto(`${origin}/operations`);
await page.getByRole('link', { name: 'create' }).first().waitFor();
await accessible('the operations');
await page.goto(`${origin}/host`);
await heading('Host');
await accessible('the host');

// ---- A phone --------------------------------------------------------------------------------

await page.setViewportSize({ width: 390, height: 844 });
for (const place of ['/', '/vms/new', '/images', '/operations', '/host']) {
  await page.goto(origin + place);
  await fits(place);
}
await accessible('the host on a phone');
// Each machine of the list changes its state while the page is open.
await page.goto(`${origin}/vms/new`);
await page.getByLabel('Name').fill('phone');
await page.getByRole('button', { name: 'Create' }).click();
await succeeded();
await page.goto(`${origin}/`);
await page.locator('#rows tr[data-state="running"]').waitFor();
await fits('the list');
await accessible('the list on a phone');
const other = await context.newPage();
await other.goto(`${origin}/vms/phone`);
await fits('the machine');
await other.getByRole('button', { name: 'Stop' }).click();
await page.locator('#rows tr[data-state="stopped"]').waitFor();
await other.close();
await page.getByRole('button', { name: 'Start phone' }).click();
await page.locator('#rows tr[data-state="running"]').waitFor();
nothingWrong('the end');

// ---- Another browser ------------------------------------------------------------------------

const stranger = await browser.newContext();
const answer = await (await stranger.newPage()).goto(link);
assert.equal(answer.status(), 403, 'the link was used');

await browser.close();
