// Measures the web page in Chromium, for `cargo xtask bench --faces`.
//
//   node speed.mjs LINK      with the packages of package.json in BANGER_WEB_TESTS/node_modules
//
// Takes one request a line and answers each with a line of JSON:
//   paint N          first paint and complete load of the list in N fresh pages, medians in ms
//   terminal         output through the terminal of the machine `vm-0`
//   follow NAMES     opens the list and waits for new machines of these names
//   followed         when each of them was shown (ms since 1970), and the longest time without a frame
//   end
import { createRequire } from 'node:module';
import path from 'node:path';
import { createInterface } from 'node:readline';

const require = createRequire(path.join(process.env.BANGER_WEB_TESTS, 'package.json'));
const { chromium } = require('playwright-core');

/** Lines that `seq -w` writes, some 20 MB of each width: short ones are the slowest output for a terminal. */
const OUTPUTS = [
  { name: 'short_lines', count: 2_300_000, width: 7 },
  { name: 'long_lines', count: 280_000, width: 72 },
];
const TIMEOUT_MS = 120_000;

const [link] = process.argv.slice(2);
const origin = new URL(link).origin;
const browser = await chromium.launch({
  executablePath: process.env.BANGER_CHROMIUM ?? '/usr/bin/chromium',
  args: ['--no-sandbox', '--disable-gpu'],
});
const context = await browser.newContext({ viewport: { width: 1440, height: 900 } });
context.setDefaultTimeout(TIMEOUT_MS);
const main = await context.newPage();
await main.goto(link);
await main.locator('#rows').waitFor();

const round = (value) => Math.round(value * 10) / 10;
const median = (values) => round([...values].sort((a, b) => a - b)[Math.floor(values.length / 2)]);

/** Measures the longest time between two frames from now on. */
const watchFrames = (page) => page.evaluate(() => {
  window.longest = 0;
  let last = performance.now();
  const frame = (now) => {
    window.longest = Math.max(window.longest, now - last);
    last = now;
    requestAnimationFrame(frame);
  };
  requestAnimationFrame(frame);
});
const longestFrame = async (page) => round(await page.evaluate(() => window.longest));

async function paint(runs) {
  const [first, loaded] = [[], []];
  for (let run = 0; run < runs; run += 1) {
    const page = await context.newPage();
    await page.goto(`${origin}/`, { waitUntil: 'load' });
    const times = await page.evaluate(async () => {
      const find = () => performance.getEntriesByType('paint').find(({ name }) => name === 'first-contentful-paint');
      while (!find()) await new Promise(requestAnimationFrame);
      return { first: find().startTime, loaded: performance.getEntriesByType('navigation')[0].loadEventEnd };
    });
    first.push(times.first);
    loaded.push(times.loaded);
    await page.close();
  }
  return { first: median(first), first_longest: round(Math.max(...first)), loaded: median(loaded) };
}

async function terminal() {
  const figures = {};
  for (const { name, count, width } of OUTPUTS) {
    const page = await context.newPage();
    await page.goto(`${origin}/vms/vm-0/terminal`);
    await page.locator('#status[data-state="ready"]').waitFor();
    await watchFrames(page);
    const last = String(count).padStart(width, '0');
    const begin = Date.now();
    await page.keyboard.type(`seq -w ${last}\n`);
    await page.waitForFunction((last) => {
      const { active } = window.bangerTerminal.buffer;
      for (let row = active.length - 1; row >= Math.max(0, active.length - 60); row -= 1) {
        if (active.getLine(row)?.translateToString(true) === last) return true;
      }
      return false;
    }, last);
    const seconds = (Date.now() - begin) / 1000;
    // Each line ends with a carriage return and a line feed.
    const bytes = count * (width + 2);
    figures[name] = { mb_each_second: round(bytes / 1e6 / seconds), longest_frame_ms: await longestFrame(page) };
    await page.close();
  }
  return figures;
}

async function follow(names) {
  await main.goto(`${origin}/`);
  await watchFrames(main);
  await main.evaluate((wanted) => {
    window.seen = {};
    new MutationObserver(() => {
      for (const name of wanted) {
        if (!(name in window.seen) && document.querySelector(`tr[data-name="${name}"]`)) {
          window.seen[name] = Date.now();
        }
      }
    }).observe(document.getElementById('rows'), { childList: true });
    window.wanted = wanted;
  }, names);
  return {};
}

async function followed() {
  await main.waitForFunction(() => window.wanted.every((name) => name in window.seen));
  return { seen: await main.evaluate(() => window.seen), longest_frame_ms: await longestFrame(main) };
}

for await (const line of createInterface({ input: process.stdin })) {
  const [request, ...words] = line.split(' ');
  if (request === 'end') break;
  const answer = await { paint: () => paint(Number(words[0])), terminal, follow: () => follow(words), followed }[request]();
  console.log(JSON.stringify(answer));
}
await browser.close();
process.exit(0);
