// What the programs that drive the page share: the browser, its keyboard, and what no page may do.
import assert from 'node:assert/strict';
import { mkdirSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';

const require = createRequire(path.join(process.env.BANGER_WEB_TESTS, 'package.json'));
const { chromium } = require('playwright-core');
const axe = readFileSync(require.resolve('axe-core/axe.min.js'), 'utf8');

const SERIOUS = ['serious', 'critical'];
const SCHEMES = ['light', 'dark'];

/** Opens a page in a window of this size, with its helpers. Any violation of the page's policy,
 * error of a script or request to elsewhere fails the next check. */
export async function drive(link, viewport, scheme, timeoutMs) {
  const origin = new URL(link).origin;
  const browser = await chromium.launch({
    executablePath: process.env.BANGER_CHROMIUM ?? '/usr/bin/chromium',
    args: ['--no-sandbox', '--disable-gpu'],
  });
  const context = await browser.newContext({ viewport, colorScheme: scheme });
  context.setDefaultTimeout(timeoutMs);
  const page = await context.newPage();

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
  const nothingWrong = (where) => assert.deepEqual(wrong, [], where);

  /** No page is wider than the window. */
  async function fits(where) {
    const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
    assert.ok(wide <= 0, `${where} is ${wide} px too wide`);
  }

  /** A picture, where BANGER_SCREENSHOTS names a folder. */
  async function picture(where, colorScheme) {
    const folder = process.env.BANGER_SCREENSHOTS;
    if (!folder) return;
    mkdirSync(folder, { recursive: true });
    const name = `${viewport.width}-${colorScheme}-${where.replaceAll(' ', '-')}.png`;
    await page.screenshot({ path: path.join(folder, name), fullPage: true });
  }

  /** axe-core in both colour schemes: nothing that it calls serious may be there. */
  async function accessible(where) {
    await fits(where);
    for (const colorScheme of SCHEMES) {
      await page.emulateMedia({ colorScheme });
      await picture(where, colorScheme);
      // A page's policy forbids inline scripts: axe is evaluated by the debugger instead.
      await page.evaluate(axe);
      const { violations } = await page.evaluate(() => window.axe.run(document));
      const found = violations.filter(({ impact }) => SERIOUS.includes(impact)).map(
        ({ id, nodes }) => `${id}: ${nodes.map((node) => node.html).slice(0, 3).join(' | ')}`,
      );
      assert.deepEqual(found, [], `${where}, ${colorScheme}`);
    }
    await page.emulateMedia({ colorScheme: scheme });
    nothingWrong(where);
  }

  /** Presses Tab until the focus is on a control with this text or label, which must be visible. */
  async function tabTo(text) {
    for (let presses = 0; presses < 120; presses += 1) {
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

  /** Types into a field, in place of what it contains. */
  async function type(field, text) {
    await tabTo(field);
    await page.keyboard.press('Control+A');
    await page.keyboard.type(text);
  }

  /** Waits until the terminal shows a line, or one that fulfils a condition. */
  const screen = (text) => page.waitForFunction((wanted) => {
    const { active } = window.bangerTerminal.buffer;
    for (let row = active.length - 1; row >= 0; row -= 1) {
      if (active.getLine(row)?.translateToString(true) === wanted) return true;
    }
    return false;
  }, text);

  return {
    origin, browser, context, page, nothingWrong, fits, accessible, tabTo, press, type, screen,
    heading: (name) => page.getByRole('heading', { level: 1, name, exact: true }).waitFor(),
    state: (name) => page.locator('#vm-head .state', { hasText: name }).waitFor(),
    succeeded: () => page.locator('#progress[data-state="succeeded"]').waitFor(),
  };
}
