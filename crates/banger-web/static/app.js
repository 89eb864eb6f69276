// Keeps open pages current, and asks before actions that lose data.
//
// The server renders all HTML. It arrives as whole elements that replace those with the same id; a
// text from a guest is only ever set as text.
'use strict';

const $ = (selector, root = document) => root.querySelector(selector);
const policy = window.trustedTypes
  ? trustedTypes.createPolicy('banger', { createHTML: (html) => html })
  : { createHTML: (html) => html };

/** The first element of HTML that the server has rendered. */
function element(html) {
  const template = document.createElement('template');
  template.innerHTML = policy.createHTML(html);
  return template.content.firstElementChild;
}

// ---- Times: in the reader's zone ------------------------------------------------------------

const short = new Intl.DateTimeFormat(undefined, { dateStyle: 'medium', timeStyle: 'medium' });

function localTimes(root) {
  for (const time of root.querySelectorAll('time:not([title])')) {
    const date = new Date(time.dateTime);
    if (Number.isNaN(date.valueOf())) continue;
    time.title = time.dateTime;
    time.textContent = short.format(date);
  }
}

// ---- Replacing elements, with the focus kept ------------------------------------------------

/** How to find an element again after its surroundings were replaced. */
function focusOf(root) {
  const active = document.activeElement;
  if (!active || active === document.body || !root.contains(active)) return null;
  if (active.id) return (next) => next.querySelector('#' + CSS.escape(active.id));
  const all = (within) =>
    [...within.querySelectorAll('a, button, input, select, summary, [tabindex]')];
  const key = (one) => [one.tagName, one.name, one.value, one.getAttribute('href')].join(' ');
  const wanted = key(active);
  return (next) => all(next).find((one) => key(one) === wanted);
}

function replace(old, next) {
  const find = focusOf(old);
  const ticked = old.querySelector('td.pick input')?.checked;
  old.replaceWith(next);
  localTimes(next);
  if (ticked) next.querySelector('td.pick input').checked = true;
  if (!find) return;
  // The control may be gone, as "Stop" is when the machine has stopped.
  const target = find(next) ?? next.querySelector('a, button:not([hidden])') ?? $('#main');
  target.focus({ preventScroll: true });
}

// ---- The list of machines -------------------------------------------------------------------

const rows = $('#rows');
let order = { key: 'name', down: false };

function compare(a, b) {
  const { key, down } = order;
  const [x, y] = [a.dataset[key], b.dataset[key]];
  const numbers = key === 'cpu' || key === 'memory' || key === 'disk';
  const first = numbers ? x - y : x < y ? -1 : x > y ? 1 : 0;
  const named = a.dataset.name < b.dataset.name ? -1 : 1;
  return (down ? -first : first) || named;
}

function insert(row) {
  const after = order.key === 'name'
    ? [...rows.children].find((other) => compare(row, other) < 0)
    : null;
  rows.insertBefore(row, after ?? null);
}

function sort() {
  const sorted = [...rows.children].sort(compare);
  const moved = sorted.some((row, index) => rows.children[index] !== row);
  if (!moved) return;
  const find = focusOf(rows);
  rows.replaceChildren(...sorted);
  find?.(rows)?.focus({ preventScroll: true });
}

function filterRows() {
  const words = $('#filter').value.toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0;
  for (const row of rows.children) {
    const text = words.length ? row.textContent.toLowerCase() : '';
    row.hidden = !words.every((word) => text.includes(word));
    shown += row.hidden ? 0 : 1;
  }
  count(shown);
}

function count(shown) {
  const all = rows.children.length;
  const chosen = rows.querySelectorAll('td.pick input:checked').length;
  const machines = all === 1 ? '1 machine' : `${all} machines`;
  const text = [shown < all ? `${shown} of ${machines}` : machines];
  if (chosen) text.push(`${chosen} chosen`);
  const line = text.join(', ');
  if ($('#count').textContent !== line) $('#count').textContent = line;
  $('#empty').hidden = all > 0;
  const box = $('#all');
  box.indeterminate = chosen > 0 && chosen < shown;
  box.checked = chosen > 0 && chosen >= shown;
}

function applyRows({ rows: changed, gone, cards, problem }) {
  for (const id of gone) document.getElementById('vm-' + id)?.remove();
  for (const { id, html } of changed) {
    const next = element(html);
    const old = document.getElementById('vm-' + id);
    if (old) replace(old, next);
    else insert(next);
  }
  if (cards) $('#cards')?.replaceWith(element(cards));
  offline(problem);
  if (changed.length || gone.length) {
    sort();
    filterRows();
  }
}

if (rows) {
  $('#filter').addEventListener('input', filterRows);
  for (const button of document.querySelectorAll('button.sort')) {
    button.addEventListener('click', () => {
      const key = button.dataset.sort;
      const numbers = key === 'cpu' || key === 'memory' || key === 'disk';
      order = { key, down: order.key === key ? !order.down : numbers };
      for (const head of document.querySelectorAll('th[aria-sort]')) {
        head.removeAttribute('aria-sort');
      }
      button.closest('th').setAttribute('aria-sort', order.down ? 'descending' : 'ascending');
      sort();
    });
  }
  $('#all').addEventListener('change', (event) => {
    for (const row of rows.children) {
      if (!row.hidden) $('td.pick input', row).checked = event.target.checked;
    }
    filterRows();
  });
  rows.addEventListener('change', filterRows);
  // A browser may have kept the filter of an earlier visit.
  if ($('#filter').value) filterRows();
}

// ---- Asking -----------------------------------------------------------------------------------

/** Answers the question that is open. */
let answer = () => {};

/** Opens the dialog; resolves with its answer. */
function ask() {
  // The event of a dialog that was closed may come when the next one is open already.
  answer('');
  const dialog = $('#confirm');
  dialog.returnValue = '';
  dialog.showModal();
  return new Promise((resolve) => { answer = resolve; });
}

$('#confirm')?.addEventListener('close', ({ target }) => {
  if (!target.open) answer(target.returnValue);
});

document.addEventListener('submit', async (event) => {
  const { submitter: button, target: form } = event;
  if (form.id === 'bulk') {
    event.preventDefault();
    if (!button?.dataset.confirm) return send(form, button, {});
  } else if (!button?.dataset.confirm || form.elements.confirmed) {
    return;
  }
  event.preventDefault();
  const what = button.dataset.confirm;
  const chosen = form.id === 'bulk' ? document.querySelectorAll('td.pick input:checked') : null;
  if (chosen && !chosen.length) return send(form, button, {});
  const names = chosen ? [...chosen].map((box) => box.closest('tr').dataset.name) : [];
  const listed = names.length > 8 ? [...names.slice(0, 8), `${names.length - 8} more`] : names;
  $('#confirm-title').textContent = chosen ? `${what} ${machines(names)}?` : `${what}?`;
  const text = [button.dataset.text];
  if (names.length > 1) text.unshift(listed.join(', ') + '.');
  $('#confirm-text').textContent = text.join(' ');
  $('#confirm-yes').textContent = what;
  if (await ask() !== 'yes') {
    // The next question may be open.
    if ($('#confirm').open) return;
    button.focus();
    return replaceWaiting();
  }
  const force = button.dataset.force ? { force: 'yes' } : {};
  const more = { confirmed: 'yes', ...force };
  if (chosen) send(form, button, more);
  else submit(form, button, more);
});

/** Sends the form of the list, whose filter, order and place in the page stay. */
async function send(form, button, more) {
  const body = new URLSearchParams(new FormData(form, button));
  for (const [name, value] of Object.entries(more)) body.set(name, value);
  // Not `form.action`: that is the control of this name.
  const answer = await fetch(form.getAttribute('action'), { method: 'POST', body });
  const next = new DOMParser().parseFromString(policy.createHTML(await answer.text()), 'text/html');
  const flash = next.getElementById('flash');
  if (!flash) return location.reload();
  $('#flash').replaceChildren(...document.adoptNode(flash).childNodes);
  for (const box of rows.querySelectorAll('td.pick input:checked')) box.checked = false;
  filterRows();
}

const machines = (names) => (names.length === 1 ? names[0] : `${names.length} machines`);

function submit(form, button, more) {
  for (const [name, value] of Object.entries(more)) {
    const input = document.createElement('input');
    Object.assign(input, { type: 'hidden', name, value });
    form.append(input);
  }
  if (button.name && !(button.name in more)) {
    const input = document.createElement('input');
    Object.assign(input, { type: 'hidden', name: button.name, value: button.value });
    form.append(input);
  }
  form.submit();
}

// ---- Live pages -------------------------------------------------------------------------------

/** Lines that a console keeps. */
const MAX_CONSOLE = 200_000;

function appendText(text) {
  const console = $('#console');
  const section = $('#log-section');
  if (section) section.hidden = false;
  const follows = console.scrollHeight - console.scrollTop - console.clientHeight < 40;
  const whole = console.textContent + text;
  console.textContent = whole.length > MAX_CONSOLE ? whole.slice(-MAX_CONSOLE) : whole;
  if (follows) console.scrollTop = console.scrollHeight;
}

function offline(problem) {
  const box = $('#offline');
  box.hidden = !problem;
  const text = problem ? `Not current: ${problem}` : '';
  if (box.textContent !== text) box.textContent = text;
}

/** Elements of the page that are fetched again when the server says that they are out of date. */
async function refetch() {
  const answer = await fetch(location.href, { headers: { accept: 'text/html' } });
  if (!answer.ok) return;
  const next = new DOMParser().parseFromString(policy.createHTML(await answer.text()), 'text/html');
  for (const id of ['images-live', 'kernels-live', 'operations-live']) {
    const [old, fresh] = [document.getElementById(id), next.getElementById(id)];
    if (!old || !fresh) continue;
    localTimes(fresh);
    if (old.innerHTML !== fresh.innerHTML && !$('#confirm').open) {
      replace(old, document.adoptNode(fresh));
    }
  }
}

/** Elements to replace, by id. While a question is open, its button must stay. */
const waiting = new Map();

function replaceWaiting() {
  if ($('#confirm').open) return;
  for (const [id, html] of waiting) {
    const old = document.getElementById(id);
    if (old) replace(old, element(html));
  }
  waiting.clear();
}

const handlers = {
  rows: applyRows,
  parts(parts) {
    for (const { id, html } of parts) waiting.set(id, html);
    replaceWaiting();
  },
  console: appendText,
  lines: appendText,
  stale: refetch,
  reload: () => location.reload(),
  gone: () => location.assign('/'),
  end: () => live.stop(),
};

const live = {
  source: null,
  url: null,
  hiddenAt: null,
  begin() {
    const of = $('[data-live], [data-stale]');
    this.url = of && (of.dataset.live ?? of.dataset.stale);
    if (this.url) this.connect();
    // Browsers open at most six connections to a host: a page in the background needs none.
    document.addEventListener('visibilitychange', () => {
      clearTimeout(this.hiddenAt);
      if (document.hidden) this.hiddenAt = setTimeout(() => this.pause(), 20_000);
      else if (this.url && !this.source) this.resume();
    });
    addEventListener('pagehide', () => this.pause());
    addEventListener('pageshow', (event) => event.persisted && this.url && this.resume());
  },
  connect() {
    this.source = new EventSource(this.url);
    for (const [name, handle] of Object.entries(handlers)) {
      this.source.addEventListener(name, (event) => {
        if (name === 'rows') this.place = event.lastEventId;
        handle(JSON.parse(event.data));
      });
    }
    this.source.onopen = () => offline(null);
    this.source.onerror = () => {
      offline('the page’s server does not answer');
      // A refused connection is not repeated by the browser.
      if (this.source?.readyState === EventSource.CLOSED) {
        this.source = null;
        setTimeout(() => this.url && !this.source && this.resume(), 2_000);
      }
    };
  },
  pause() {
    this.source?.close();
    this.source = null;
  },
  resume() {
    if (this.place) this.url = '/live/vms?since=' + encodeURIComponent(this.place);
    const console = $('#console');
    if (console) console.textContent = '';
    if ($('[data-stale]')) refetch();
    this.connect();
  },
  stop() {
    this.url = null;
    this.pause();
  },
};

localTimes(document);
live.begin();
const first = $('[data-focus]');
if (first) first.focus();
