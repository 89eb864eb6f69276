// Drives the web page in Chromium by keyboard, as a user would, and checks each page with axe-core.
//
//   node flows.mjs LINK WIDTHxHEIGHT light|dark
//
// with the packages of package.json in BANGER_WEB_TESTS/node_modules, and a port of the host that is
// free in BANGER_FREE_PORT. The daemon works on the simulated host. The first failed check ends the
// program with its text.
import assert from 'node:assert/strict';
import { drive } from './driver.mjs';

const [link, size, scheme] = process.argv.slice(2);
const [width, height] = size.split('x').map(Number);
const {
  origin, browser, context, page, nothingWrong, accessible, tabTo, press, type, screen,
  heading, state, succeeded,
} = await drive(link, { width, height }, scheme, 60_000);

// ---- In, and the empty list -----------------------------------------------------------------

await page.goto(link);
await heading('Machines');
await page.getByText('There is no machine yet.').waitFor();
await accessible('the empty list');

// ---- A create that fails, and one that does not ---------------------------------------------

await press('New machine');
await heading('New machine');
await accessible('the form');
await type('Name', 'Bad_Name');
await page.keyboard.press('Enter');
const alert = page.locator('#error');
await alert.filter({ hasText: '`Bad_Name` is not a VM name' }).waitFor();
assert.equal(await page.evaluate(() => document.activeElement.id), 'error', 'the error has the focus');
assert.equal(await page.getByLabel('Name').inputValue(), 'Bad_Name');
await accessible('the refused form');
await type('Name', 'web');
await type('Labels', 'x=<img/src=x/onerror=alert(1)>');
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
await page.keyboard.type('echo "täst <b> €"\n');
await screen('täst <b> €');
await accessible('the terminal');
// The guest has the size of the terminal, also after a change.
for (const other of [width - 60, width]) {
  const cols = await page.evaluate(() => window.bangerTerminal.cols);
  await page.setViewportSize({ width: other, height: 700 });
  await page.waitForFunction((before) => window.bangerTerminal.cols !== before, cols);
  await page.keyboard.type('stty size\n');
  await screen(await page.evaluate(() => `${window.bangerTerminal.rows} ${window.bangerTerminal.cols}`));
}
// Pasted text reaches the guest as it is; selected text is copied.
await context.grantPermissions(['clipboard-read', 'clipboard-write'], { origin });
await page.evaluate(() => navigator.clipboard.writeText('echo pasted-ü'));
await page.keyboard.press('Control+Shift+V');
// The browser pastes beside the keyboard: a key that is pressed at once may come first.
await page.waitForFunction(() => {
  const { active } = window.bangerTerminal.buffer;
  const line = active.getLine(active.baseY + active.cursorY);
  return line.translateToString(true).endsWith('echo pasted-ü');
});
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
await page.setViewportSize({ width, height });
// Without a shell, the terminal lets go of Tab.
await press('web');
await heading('web');

// ---- A port, a restart, a kill, a stop, a delete --------------------------------------------

await press('Publish a port');
await type('Host port:guest port', '0:80');
await page.keyboard.press('Enter');
await page.getByRole('alert').filter({ hasText: 'port' }).waitFor();
await press('Publish a port');
await type('Host port:guest port', `${process.env.BANGER_FREE_PORT}:80`);
await page.keyboard.press('Enter');
const published = page.locator('#vm-ports a');
await published.waitFor();
// Under another name than the page's own, so that the guest does not get its cookie.
assert.match(await published.getAttribute('href'), /^http:\/\/localhost:\d+\/$/);
await accessible('the machine with a port');
await press('Restart');
await page.getByText('Restarting web').waitFor();
// The operation has ended.
const settled = () => page.locator('#vm-head .sub a').waitFor({ state: 'detached' });
await settled();
await state('running');
const dialog = page.getByRole('dialog');
const confirm = async () => {
  await dialog.waitFor();
  await page.keyboard.press('Tab');
  await page.keyboard.press('Enter');
};
await press('Kill');
await confirm();
await state('stopped');
await page.getByText('A kill was requested.').waitFor();
await press('Start');
await state('running');
await settled();
await press('Stop');
await state('stopped');
await accessible('the stopped machine');
await press('Delete');
await dialog.waitFor();
await accessible('the question');
await page.keyboard.press('Escape');
await dialog.waitFor({ state: 'hidden' });
assert.equal(await page.evaluate(() => document.activeElement.value), 'delete', 'the focus is back');
await page.keyboard.press('Enter');
await dialog.waitFor();
// Asked again before the browser tells that the dialog was closed.
await page.evaluate(() => {
  document.getElementById('confirm').close();
  document.querySelector('button[value=delete]').click();
});
await confirm();
await heading('Machines');
await page.getByText('There is no machine yet.').waitFor();

// ---- Images, operations, host ---------------------------------------------------------------

await press('Images');
await heading('Images');
await type('Recipe or reference', 'ghcr.io/acme/app:1');
await page.keyboard.press('Enter');
await succeeded();
await press('Images');
await page.getByRole('link', { name: 'ghcr.io/acme/app:1' }).waitFor();
await accessible('the images');
// A form with an error of the daemon.
await press('Import');
await type('File or folder of this host', 'relative');
await type('Name', 'x');
await page.keyboard.press('Enter');
await page.getByRole('alert').filter({ hasText: '`relative` is not an absolute path' }).waitFor();
await press('ghcr.io/acme/app:1');
await heading('ghcr.io/acme/app:1');
await accessible('the image');
await press('Operations');
await heading('Operations');
await page.getByRole('link', { name: 'create' }).first().waitFor();
await accessible('the operations');
await press('Host');
await heading('Host');
await accessible('the host');

// ---- The list, live ---------------------------------------------------------------------------

await press('Machines');
await heading('Machines');
for (const name of ['one', 'two']) {
  await press('New machine');
  await heading('New machine');
  await type('Name', name);
  await page.keyboard.press('Enter');
  await succeeded();
  await press('Machines');
  await heading('Machines');
}
await page.locator('#rows tr[data-state="running"]').nth(1).waitFor();
await accessible('the list');
// Each machine of the list changes its state while the page is open.
const other = await context.newPage();
await other.goto(`${origin}/vms/one`);
await other.getByRole('button', { name: 'Stop' }).click();
await page.locator('#rows tr[data-name="one"][data-state="stopped"]').waitFor();
await other.close();
await press('Start one');
await page.locator('#rows tr[data-name="one"][data-state="running"]').waitFor();
// Many at once, and the filter.
await type('Filter by name, image, state or label', 'two');
await page.getByText('1 of 2 machines').waitFor();
await page.keyboard.press('Control+A');
await page.keyboard.press('Delete');
await tabTo('Choose all machines shown');
await page.keyboard.press('Space');
await page.getByText('2 machines, 2 chosen').waitFor();
await press('Delete');
await confirm();
await page.getByText('There is no machine yet.').waitFor();
nothingWrong('the end');

// ---- Another browser ------------------------------------------------------------------------

const stranger = await browser.newContext();
const answer = await (await stranger.newPage()).goto(link);
assert.equal(answer.status(), 403, 'the link was used');

await browser.close();
