// The terminal: xterm.js on a WebSocket. Bytes in binary messages, everything else in JSON.
'use strict';

{
  const box = document.getElementById('terminal');
  const status = document.getElementById('status');
  const again = document.getElementById('again');
  const dark = matchMedia('(prefers-color-scheme: dark)');

  const theme = () => {
    const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
    const selection = dark.matches ? '#3d5a80' : '#b7d5f5';
    return {
      background: color('--terminal'),
      foreground: color('--terminal-text'),
      cursor: color('--terminal-text'),
      cursorAccent: color('--terminal'),
      selectionBackground: selection,
    };
  };

  const terminal = new Terminal({
    allowProposedApi: false,
    cursorBlink: !matchMedia('(prefers-reduced-motion: reduce)').matches,
    fontFamily: 'ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace',
    fontSize: 14,
    minimumContrastRatio: 4.5,
    screenReaderMode: false,
    scrollback: 10_000,
    theme: theme(),
    // Links in a guest's output are not opened: their text and their target may differ.
    linkHandler: { activate() {} },
  });
  const fit = new FitAddon.FitAddon();
  terminal.loadAddon(fit);
  terminal.open(box);
  dark.addEventListener('change', () => { terminal.options.theme = theme(); });

  // ---- Copy, paste, and a way out by keyboard ------------------------------------------------

  terminal.attachCustomKeyEventHandler((event) => {
    // Without a shell, Tab leads on as everywhere.
    if (event.key === 'Tab' && terminal.options.disableStdin) return false;
    if (event.type !== 'keydown' || !event.ctrlKey || !event.shiftKey) return true;
    switch (event.code) {
      case 'KeyC':
        if (terminal.hasSelection()) navigator.clipboard?.writeText(terminal.getSelection());
        event.preventDefault();
        return false;
      case 'KeyV':
        // The browser's own paste event brings the text, where it allows reading it.
        return false;
      case 'Escape':
        (again.hidden ? document.querySelector('main h1 a') : again).focus();
        event.preventDefault();
        return false;
      default:
        return true;
    }
  });

  // ---- The connection ------------------------------------------------------------------------

  let socket = null;
  const send = (message) => socket?.readyState === WebSocket.OPEN && socket.send(message);
  const encoder = new TextEncoder();
  const bytes = (binary) => Uint8Array.from(binary, (char) => char.charCodeAt(0));

  /** Largest message with input. */
  const PIECE = 64 * 1024;

  function input(data) {
    for (let at = 0; at < data.length; at += PIECE) send(data.subarray(at, at + PIECE));
  }

  terminal.onData((data) => input(encoder.encode(data)));
  terminal.onBinary((data) => input(bytes(data)));
  terminal.onResize(({ rows, cols }) => send(JSON.stringify({ size: { rows, cols } })));

  // Acknowledged when the terminal has processed it: the server waits for that.
  function output(data) {
    terminal.write(data, () => send(JSON.stringify({ ack: data.length })));
  }

  function ended(text) {
    status.textContent = text;
    status.dataset.state = 'ended';
    again.hidden = false;
    terminal.options.cursorBlink = false;
    terminal.options.disableStdin = true;
  }

  function connect() {
    again.hidden = true;
    status.textContent = 'Connecting…';
    delete status.dataset.state;
    terminal.options.disableStdin = false;
    fit.fit();
    const url = new URL(box.dataset.socket, location.href);
    url.protocol = 'ws:';
    url.search = `rows=${terminal.rows}&cols=${terminal.cols}`;
    const mine = new WebSocket(url);
    mine.binaryType = 'arraybuffer';
    socket = mine;
    let told = false;
    mine.onmessage = ({ data }) => {
      if (typeof data !== 'string') {
        output(new Uint8Array(data));
        return;
      }
      const report = JSON.parse(data);
      if (report === 'ready') {
        status.textContent = 'Connected';
        status.dataset.state = 'ready';
        terminal.focus();
      } else if ('exit' in report) {
        told = true;
        ended(`The shell ended with exit code ${report.exit}. The machine goes on.`);
      } else if ('error' in report) {
        told = true;
        const [message, hint] = report.error;
        ended(hint ? `Error: ${message}. ${hint}` : `Error: ${message}`);
      }
    };
    mine.onclose = () => {
      if (socket === mine && !told) ended('The connection was lost. The machine goes on.');
    };
  }

  again.addEventListener('click', () => {
    terminal.reset();
    connect();
  });
  new ResizeObserver(() => fit.fit()).observe(box);
  addEventListener('beforeunload', () => socket?.close());
  window.bangerTerminal = terminal;
  connect();
}
