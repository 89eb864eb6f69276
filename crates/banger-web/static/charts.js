// Charts of the last hour: CPU, memory, disk and network of one machine.
'use strict';

{
  const box = document.getElementById('charts');
  const page = document.getElementById('vm');
  const INTERVAL = 5_000;
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];

  function size(bytes) {
    let unit = 0;
    while (bytes >= 1024 && unit < units.length - 1) {
      bytes /= 1024;
      unit += 1;
    }
    return `${bytes >= 100 || unit === 0 ? bytes.toFixed(0) : bytes.toFixed(1)} ${units[unit]}`;
  }
  const rate = (bytes) => `${size(bytes)}/s`;
  const percent = (value) => `${value.toFixed(value < 10 ? 1 : 0)} %`;

  const kinds = [
    { title: 'CPU', format: percent, lines: [['CPU', 'cpu', '--line-1']] },
    { title: 'Memory', format: size, lines: [['Memory', 'memory', '--line-1']] },
    { title: 'Disk', format: rate, lines: [['Read', 'read', '--line-1'], ['Written', 'written', '--line-2']] },
    {
      title: 'Network', format: rate,
      lines: [['Received', 'received', '--line-1'], ['Sent', 'sent', '--line-2']],
    },
  ];

  // Steps of the axis of bytes.
  const powers = Array.from({ length: 50 }, (_, power) => 2 ** power);

  const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  let charts = [];

  function make(kind, data) {
    const figure = document.createElement('figure');
    const caption = document.createElement('figcaption');
    const title = document.createElement('span');
    title.className = 'title';
    title.textContent = kind.title;
    const now = document.createElement('span');
    now.className = 'now';
    caption.append(title, now);
    const plot = document.createElement('div');
    plot.setAttribute('aria-hidden', 'true');
    figure.append(caption, plot);
    box.append(figure);
    const text = color('--muted');
    const axis = { stroke: text, grid: { stroke: color('--line'), width: 1 }, ticks: { show: false }, font: '12px system-ui, sans-serif' };
    const options = {
      width: Math.max(200, figure.clientWidth), height: 140, legend: { show: false },
      cursor: { y: false }, padding: [8, 8, 0, 0],
      scales: { y: { range: (_, __, most) => [0, Math.max(most * 1.1, 1)] } },
      axes: [
        { ...axis, size: 28, space: 72, values: [[60, '{HH}:{mm}', null, null, null, null, null, null, 1], [1, '{HH}:{mm}:{ss}', null, null, null, null, null, null, 1]] },
        { ...axis, size: 72, incrs: kind.format === percent ? undefined : powers, values: (_, ticks) => ticks.map(kind.format) },
      ],
      series: [{}, ...kind.lines.map(([label, , line], index) => ({
        label, stroke: color(line), width: 2, dash: index ? [6, 4] : [], points: { show: false },
      }))],
    };
    return { kind, now, figure, plot: new uPlot(options, data, plot) };
  }

  /** The newest values, beside a sample of their lines. */
  function describe({ kind, now }, usage) {
    const parts = kind.lines.map(([label, key], index) => {
      const part = document.createElement('span');
      const value = usage[key].at(-1);
      const text = value == null ? 'unknown' : kind.format(value);
      part.textContent = kind.lines.length > 1 ? `${label} ${text}` : text;
      if (kind.lines.length > 1) part.className = `key line-${index + 1}`;
      return part;
    });
    now.replaceChildren(...parts);
  }

  async function update() {
    if (document.hidden) return;
    const answer = await fetch(page.dataset.usage);
    if (!answer.ok) return;
    const usage = await answer.json();
    // A line needs two points.
    if (usage.at.length < 2) return;
    document.getElementById('charts-empty')?.remove();
    const columns = ({ lines }) => [usage.at, ...lines.map(([, key]) => usage[key])];
    if (!charts.length) charts = kinds.map((kind) => make(kind, columns(kind)));
    for (const chart of charts) {
      chart.plot.setData(columns(chart.kind));
      describe(chart, usage);
    }
  }

  function remake() {
    for (const chart of charts) {
      chart.plot.destroy();
      chart.figure.remove();
    }
    charts = [];
    update();
  }

  let width = box.clientWidth;
  new ResizeObserver(() => {
    if (box.clientWidth === width) return;
    width = box.clientWidth;
    for (const { plot, figure } of charts) {
      plot.setSize({ width: Math.max(200, figure.clientWidth), height: 140 });
    }
  }).observe(box);
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', remake);
  document.addEventListener('visibilitychange', update);
  setInterval(update, INTERVAL);
  update();
}
