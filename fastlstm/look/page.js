"use strict";
// The page of a trace. Values lie in blocks of bytes (T, n), time first, which are unpacked when they
// are first looked at; 0 is a step that doesn't exist, 1 to 255 go from `low` to `high`.

const about = JSON.parse(document.getElementById("about").textContent);
const at = (id) => document.getElementById(id);
const T = about.steps.length, H = about.units.length;
const LEAST = 16; // steps that are seen at least
const state = { row: 0, array: about.names.includes("c") ? "c" : about.names[0], unit: 0, step: 0,
                first: 0, shown: T };
const blocks = new Map();

// Data

async function unpacked(k) {
  const text = atob(at("block" + k).textContent);
  const packed = Uint8Array.from(text, (c) => c.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

function block(k) {
  if (!blocks.has(k)) blocks.set(k, unpacked(k));
  return blocks.get(k);
}

// Halves of time, again and again: least and largest of 2, 4, 8, ... steps, those that exist.
function halves(bytes, n) {
  const levels = [{ size: T, least: bytes, most: bytes }];
  while (levels.at(-1).size > 512) {
    const last = levels.at(-1), size = Math.ceil(last.size / 2);
    const least = new Uint8Array(size * n), most = new Uint8Array(size * n);
    for (let t = 0; t < size; t++) {
      const a = 2 * t * n, b = 2 * t + 1 < last.size ? a + n : a;
      for (let k = 0; k < n; k++) {
        const p = last.least[a + k], q = last.least[b + k];
        least[t * n + k] = p === 0 ? q : q === 0 ? p : Math.min(p, q);
        most[t * n + k] = Math.max(last.most[a + k], last.most[b + k]);
      }
    }
    levels.push({ size, least, most });
  }
  return levels;
}

// Each end by itself, as the range of the largest floats is none of them.
const valueOf = (one, byte) => byte ? one.low * ((255 - byte) / 254) + one.high * ((byte - 1) / 254) : NaN;
function written(value, one) {
  if (Number.isNaN(value)) return "–";
  const digits = Math.ceil(-Math.log10(one.high / 254 - one.low / 254)) + 1;
  return digits > 9 ? value.toExponential(2) : value.toFixed(Math.max(0, digits));
}

let here = null; // what is drawn: bytes of all arrays of the row, and the halves of the chosen one
let asked = 0;

async function load() {
  const row = about.rows[state.row], mine = ++asked;
  const arrays = {};
  await Promise.all(about.names.map(async (name) => { arrays[name] = await block(row.arrays[name].block); }));
  const input = about.input ? await Promise.all(about.input.features.map((one) => block(one.block))) : [];
  if (mine !== asked) return; // something else was chosen meanwhile
  here = { row, arrays, input, levels: halves(arrays[state.array], H) };
  painted = "";
  draw();
}

// Drawing: once a frame at most, and of what is in the window alone.

let waiting = false;
function draw() {
  if (waiting || !here) return;
  waiting = true;
  requestAnimationFrame(() => {
    waiting = false;
    drawHeat(); drawLines(); drawInput(); drawText(); tell();
    document.documentElement.dataset.drawn = String(Number(document.documentElement.dataset.drawn || 0) + 1);
  });
}

function prepared(id, height) {
  const canvas = at(id), ratio = window.devicePixelRatio || 1;
  const width = Math.max(1, Math.round(canvas.clientWidth * ratio));
  canvas.style.height = height + "px";
  if (canvas.width !== width || canvas.height !== Math.round(height * ratio)) {
    canvas.width = width; canvas.height = Math.round(height * ratio);
  }
  const context = canvas.getContext("2d");
  context.setTransform(1, 0, 0, 1, 0, 0);
  context.clearRect(0, 0, canvas.width, canvas.height);
  return { canvas, context, ratio };
}

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const isSigned = (name) => !about.amounts.includes(name);
const tableOf = {};
for (const [name, colours] of Object.entries(about.maps)) {
  const table = new Uint32Array(256); // little-endian RGBA by byte
  for (let byte = 1; byte < 256; byte++) {
    const [r, g, b] = colours[byte];
    table[byte] = (255 << 24 | b << 16 | g << 8 | r) >>> 0;
  }
  tableOf[name] = table;
}
const tableFor = (name) => tableOf[isSigned(name) ? "signed" : "amount"];

// The colours of columns of time, drawn anew where they change: not for a cursor that moves.
const hidden = document.createElement("canvas");
let painted = "";
function paint(level, from, to) {
  const key = [state.row, state.array, level, from, to].join();
  if (key === painted) return;
  painted = key;
  const { least, most } = here.levels[level], columns = to - from;
  const table = tableFor(state.array), middle = isSigned(state.array) ? 128 : 1;
  hidden.width = columns; hidden.height = H;
  const inside = hidden.getContext("2d"), image = inside.createImageData(columns, H);
  const pixels = new Uint32Array(image.data.buffer);
  for (let t = 0; t < columns; t++) {
    const start = (from + t) * H;
    for (let k = 0, pixel = (H - 1) * columns + t; k < H; k++, pixel -= columns) {
      const low = least[start + k], high = most[start + k];
      // Of several steps that which is furthest from 0.
      pixels[pixel] = table[middle - low > high - middle ? low : high];
    }
  }
  inside.putImageData(image, 0, 0);
}

function drawHeat() {
  const each = Math.max(1, Math.min(14, Math.floor(360 / H)));
  const { canvas, context, ratio } = prepared("heat", Math.max(60, Math.min(H * each, 512)));
  // The coarsest halves that have about a column for each pixel.
  let level = 0;
  while (level + 1 < here.levels.length && state.shown / 2 ** (level + 1) >= 0.75 * canvas.width) level++;
  const width = 2 ** level, from = Math.floor(state.first / width);
  const to = Math.min(here.levels[level].size, Math.ceil((state.first + state.shown) / width));
  paint(level, from, to);
  context.fillStyle = colour("--missing");
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.imageSmoothingEnabled = false;
  const x = canvas.width / state.shown;
  context.drawImage(hidden, (from * width - state.first) * x, 0, (to - from) * width * x, canvas.height);
  const y = canvas.height / H;
  context.strokeStyle = colour("--mark"); context.lineWidth = ratio;
  context.strokeRect(0, (H - 1 - state.unit) * y, canvas.width, Math.max(y, 2));
  cursor(context, canvas);
  const one = here.row.arrays[state.array];
  at("heat-caption").textContent = `${state.array} of ${here.row.name}: units from below, time to the right`
    + (level ? `; of each ${width} steps the one furthest from 0` : "");
  at("least").textContent = one.low.toPrecision(3); at("most").textContent = one.high.toPrecision(3);
  const bar = at("bar"), strip = bar.getContext("2d");
  bar.width = 255; bar.height = 1;
  const bars = strip.createImageData(255, 1);
  new Uint32Array(bars.data.buffer).set(tableFor(state.array).subarray(1));
  strip.putImageData(bars, 0, 0);
}

function cursor(context, canvas) {
  const x = (state.step + 0.5 - state.first) * canvas.width / state.shown;
  context.fillStyle = colour("--mark");
  context.fillRect(Math.round(x), 0, window.devicePixelRatio || 1, canvas.height);
}

// A line of bytes(t) in a strip: from least to largest of the steps that one pixel has.
function drawStrip(context, canvas, top, height, byteAt, stroke) {
  const scale = canvas.width / state.shown;
  const last = Math.min(T, state.first + state.shown);
  context.strokeStyle = stroke; context.lineWidth = 1.25 * (window.devicePixelRatio || 1);
  context.beginPath();
  const place = (byte) => top + height * (1 - (byte - 1) / 254);
  let open = false;
  const each = Math.max(1, Math.floor(1 / scale));
  for (let t = state.first; t < last; t += each) {
    let low = 256, high = 0;
    for (let s = t; s < Math.min(t + each, last); s++) {
      const byte = byteAt(s);
      if (byte) { low = Math.min(low, byte); high = Math.max(high, byte); }
    }
    if (!high) { open = false; continue; }
    const x = (t + each / 2 - state.first) * scale;
    if (open) context.lineTo(x, place(low)); else context.moveTo(x, place(low));
    context.lineTo(x, place(high));
    if (each === 1 && !open) context.lineTo(x + 1, place(high));
    open = true;
  }
  context.stroke();
}

// What the chosen unit has over time, by name: side by side, as lines go over all of it.
function columns() {
  if (here.unit !== state.unit) {
    here.unit = state.unit;
    here.columns = {};
    for (const name of about.names) {
      const bytes = here.arrays[name], own = new Uint8Array(T);
      for (let t = 0, place = state.unit; t < T; t++, place += H) own[t] = bytes[place];
      here.columns[name] = own;
    }
  }
  return here.columns;
}

function drawLines() {
  const strip = 56, label = 15, own = columns();
  const { canvas, context, ratio } = prepared("lines", strip * about.names.length);
  about.names.forEach((name, k) => {
    const top = (k * strip + label) * ratio, height = (strip - label - 3) * ratio;
    const one = here.row.arrays[name];
    context.fillStyle = colour("--faint");
    const zero = top + height / (1 - one.low / one.high);
    context.fillRect(0, zero, canvas.width, ratio);
    drawStrip(context, canvas, top, height, (t) => own[name][t], about.lines[k % about.lines.length]);
    context.font = `${12 * ratio}px system-ui, sans-serif`;
    context.textBaseline = "top"; context.fillStyle = colour("--ink");
    context.fillText(`${name}  ${one.low.toPrecision(3)} to ${one.high.toPrecision(3)}`, 3 * ratio, k * strip * ratio);
  });
  cursor(context, canvas);
  const steps = memoryOf(here.row, state.unit);
  const tells = Number.isNaN(steps) ? "" : steps === Infinity ? ": never forgets" : `: remembers ${steps.toPrecision(3)} steps`;
  at("unit-caption").textContent = `unit ${about.units[state.unit]} of ${here.row.name}${tells}`;
}

function drawInput() {
  if (!about.input) return;
  at("input-figure").hidden = false;
  const { canvas, context, ratio } = prepared("input", 90);
  here.input.forEach((bytes, k) => {
    drawStrip(context, canvas, 4 * ratio, 82 * ratio, (t) => bytes[t], about.lines[k % about.lines.length]);
  });
  cursor(context, canvas);
  const drawn = here.input.length, count = about.input.count;
  at("input-caption").textContent = drawn < count ? `input: ${drawn} of ${count} features, each over its own range`
    : `input${count > 1 ? `: ${count} features, each over its own range` : ""}`;
}

const MOST = 400; // tokens that are written
function drawText() {
  if (!about.tokens) return;
  const text = at("text"), bytes = here.arrays[state.array];
  const colours = about.maps[isSigned(state.array) ? "signed" : "amount"];
  // Of a window that has more, the part with the chosen step.
  const end = Math.min(T, state.first + state.shown), inside = state.step >= state.first && state.step < end;
  const first = state.first + (inside ? Math.floor((state.step - state.first) / MOST) * MOST : 0);
  const last = Math.min(end, first + MOST);
  const isWords = about.tokens.some((token) => [...token].length > 1);
  const pieces = first > state.first ? ["… "] : [];
  for (let t = first; t < last; t++) {
    const span = document.createElement("span"), byte = bytes[t * H + state.unit];
    span.textContent = about.tokens[t];
    span.dataset.step = t;
    if (byte) {
      const [r, g, b] = colours[byte];
      span.style.background = `rgb(${r}, ${g}, ${b})`;
      span.style.color = 0.2126 * r + 0.7152 * g + 0.0722 * b > 120 ? "#000" : "#fff";
    }
    if (t === state.step) span.className = "now";
    pieces.push(span);
    if (isWords) pieces.push(" ");
  }
  if (last < end) pieces.push(" …");
  text.hidden = false;
  text.replaceChildren(...pieces);
}

// Numbers

function tell() {
  const t = state.step, parts = about.names.map((name) => {
    const one = here.row.arrays[name];
    return `${name} ${written(valueOf(one, here.arrays[name][t * H + state.unit]), one)}`;
  });
  const token = about.tokens ? ` ${JSON.stringify(about.tokens[t])}` : "";
  const input = here.input.slice(0, 4).map((bytes, k) => {
    const one = about.input.features[k];
    return `x${k} ${written(valueOf(one, bytes[t]), one)}`;
  });
  at("readout").textContent = `step ${about.steps[t]}${token}, unit ${about.units[state.unit]}: `
    + [...parts, ...input].join("  ");
}

function tableInto(id, head, lines) {
  const table = document.createElement("table");
  const add = (section, cells, kind) => {
    const line = section.insertRow();
    for (const cell of cells) {
      const made = document.createElement(kind);
      if (kind === "th") made.scope = "col";
      made.append(cell);
      line.append(made);
    }
  };
  add(table.createTHead(), head, "th");
  const body = table.createTBody();
  lines.forEach((line) => add(body, line, "td"));
  at(id).replaceChildren(table);
}

// Steps that a unit remembers, NaN where that is not known.
const memoryOf = (row, k) => Number(row.remembers?.[k] ?? NaN);
const percent = (share) => share === null || Number.isNaN(share) ? "–" : `${(100 * share).toFixed(0)}%`;
const mean = (values) => values.reduce((sum, value) => sum + (value ?? NaN), 0) / values.length;

function drawTables() {
  const row = about.rows[state.row], gates = Object.keys(row.low);
  tableInto("saturation", ["gate", "shut (< 0.1)", "open (> 0.9)"], gates.map((gate) => [
    gate === "g" ? "g (< −0.9, > 0.9)" : gate, percent(mean(row.low[gate])), percent(mean(row.high[gate]))]));
  const order = [...about.units.keys()];
  const rank = (k) => { const steps = memoryOf(row, k); return Number.isNaN(steps) ? -1 : steps; };
  order.sort((a, b) => rank(b) === rank(a) ? a - b : rank(b) - rank(a));
  tableInto("memory", ["unit", "remembers (steps)", "f open", "i shut", "o shut", "moves"], order.slice(0, 30).map((k) => {
    const button = document.createElement("button");
    button.type = "button"; button.textContent = about.units[k];
    button.setAttribute("aria-label", `Show unit ${about.units[k]}`);
    button.onclick = () => choose({ unit: k });
    const steps = memoryOf(row, k);
    return [button, Number.isNaN(steps) ? "–" : steps === Infinity ? "∞" : steps.toPrecision(3),
            percent(row.high.f?.[k] ?? null), percent(row.low.i?.[k] ?? null), percent(row.low.o?.[k] ?? null),
            row.still ? (row.still[k] ? "never" : "yes") : "–"];
  }));
}

// What is chosen, and by what

function choose(change) {
  const before = { ...state };
  Object.assign(state, change);
  state.unit = Math.min(H - 1, Math.max(0, state.unit));
  state.step = Math.min(T - 1, Math.max(0, state.step));
  state.shown = Math.min(T, Math.max(Math.min(LEAST, T), Math.round(state.shown)));
  if (change.step !== undefined && change.first === undefined) { // keep the step in the window
    if (state.step < state.first) state.first = state.step;
    if (state.step >= state.first + state.shown) state.first = state.step - state.shown + 1;
  }
  state.first = Math.min(T - state.shown, Math.max(0, Math.round(state.first)));
  at("unit").value = state.unit; at("row").value = state.row; at("array").value = state.array;
  const scroll = at("scroll");
  scroll.max = T - state.shown; scroll.value = state.first; scroll.disabled = state.shown === T;
  if (state.row !== before.row) drawTables();
  if (state.row !== before.row || state.array !== before.array) load(); else draw();
}

function zoom(factor, step = state.step) {
  const shown = Math.min(T, Math.max(Math.min(LEAST, T), state.shown * factor));
  const share = Math.min(1, Math.max(0, (step - state.first) / state.shown));
  choose({ shown, first: step - share * shown });
}

function options(id, texts) {
  at(id).replaceChildren(...texts.map((text, k) => new Option(text, id === "array" ? text : k)));
}

at("title").textContent = document.title;
const counted = (n, what) => `${n.toLocaleString("en")} ${what}${n === 1 ? "" : "s"}`;
at("about-data").textContent = `${counted(T, "step")}, ${counted(H, "unit")}, `
  + `${counted(about.rows.length, "direction")} of layers; values are rounded to 1/254 of each array's range`;
options("row", about.rows.map((row) => row.name));
options("array", about.names);
options("unit", about.units.map(String));
at("row").onchange = (event) => choose({ row: Number(event.target.value) });
at("array").onchange = (event) => choose({ array: event.target.value });
at("unit").onchange = (event) => choose({ unit: Number(event.target.value) });
at("scroll").oninput = (event) => choose({ first: Number(event.target.value) });
at("in").onclick = () => zoom(0.5);
at("out").onclick = () => zoom(2);
at("all").onclick = () => choose({ shown: T, first: 0 });
at("text").onclick = (event) => {
  if (event.target.dataset.step) choose({ step: Number(event.target.dataset.step) });
};

for (const id of ["heat", "lines", "input"]) {
  const canvas = at(id);
  const stepAt = (event) => {
    const box = canvas.getBoundingClientRect();
    return Math.floor(state.first + (event.clientX - box.left) / box.width * state.shown);
  };
  const point = (event) => {
    const box = canvas.getBoundingClientRect();
    const change = { step: stepAt(event), first: state.first };
    if (id === "heat") change.unit = H - 1 - Math.floor((event.clientY - box.top) / box.height * H);
    choose(change);
  };
  let held = null;
  // A finger does not move before it is down.
  canvas.onpointerdown = (event) => { held = { x: event.clientX, first: state.first }; point(event); };
  canvas.onpointerup = canvas.onpointerleave = () => { held = null; };
  canvas.onpointermove = (event) => {
    if (held && event.buttons && state.shown < T) {
      choose({ first: held.first - (event.clientX - held.x) / canvas.clientWidth * state.shown });
    } else point(event);
  };
  canvas.addEventListener("wheel", (event) => {
    if (event.ctrlKey) zoom(event.deltaY > 0 ? 1.25 : 0.8, stepAt(event));
    else if (state.shown < T && (event.deltaX || event.shiftKey)) {
      choose({ first: state.first + Math.sign(event.deltaX || event.deltaY) * Math.max(1, state.shown / 20) });
    } else return; // the page scrolls
    event.preventDefault();
  }, { passive: false });
}

at("heat").onkeydown = (event) => {
  const far = event.shiftKey ? 10 : 1;
  const moves = {
    ArrowLeft: () => choose({ step: state.step - far }), ArrowRight: () => choose({ step: state.step + far }),
    ArrowUp: () => choose({ unit: state.unit + 1 }), ArrowDown: () => choose({ unit: state.unit - 1 }),
    PageUp: () => choose({ step: state.step - state.shown }), PageDown: () => choose({ step: state.step + state.shown }),
    Home: () => choose({ step: 0 }), End: () => choose({ step: T - 1 }),
    "+": () => zoom(0.5), "=": () => zoom(0.5), "-": () => zoom(2),
  };
  if (event.ctrlKey || event.metaKey || event.altKey || !moves[event.key]) return;
  moves[event.key]();
  event.preventDefault();
};

window.addEventListener("resize", draw);
window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
// #unit=12&step=140&row=l0&array=c opens the page there.
const asks = new URLSearchParams(location.hash.slice(1));
const placeOf = (name, list) => Math.max(0, list.map(String).indexOf(asks.get(name)));
if (about.names.includes(asks.get("array"))) state.array = asks.get("array");
state.row = placeOf("row", about.rows.map((row) => row.name));
drawTables();
choose({ unit: placeOf("unit", about.units), step: placeOf("step", about.steps) });
load();
