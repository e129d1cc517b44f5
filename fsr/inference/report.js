"use strict";
const report = JSON.parse(document.querySelector("script.report").textContent);
const { classes, letters } = report;
const two = letters.length > 1;
const root = document.documentElement;
root.classList.add("live");

const find = (selector, within = document) => within.querySelector(selector);
const all = (selector, within = document) => [...within.querySelectorAll(selector)];
const percent = (fraction) => (100 * fraction).toFixed(1);

/** An element with attributes and children; a string is a child as text, never as markup. */
function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}
const className = (id) => [make("i", { class: "swatch", style: `background: ${classes[id].colour}` }), classes[id].name];

/* Tables sort by a click on a heading; what is absent comes last. */
for (const table of all("table.sortable")) {
  const body = table.tBodies[table.tBodies.length - 1];
  [...body.rows].forEach((row, place) => {
    row.values = [place, ...[...row.cells].slice(1).map((cell) => parseFloat(cell.textContent))];
  });
  const headers = [...table.tHead.rows[table.tHead.rows.length - 1].cells];
  headers.forEach((header, column) => {
    const button = make("button", { type: "button", title: "sort" }, header.textContent);
    header.replaceChildren(button);
    button.onclick = () => {
      const down = header.getAttribute("aria-sort") !== "descending" && column > 0;
      for (const other of headers) other.removeAttribute("aria-sort");
      header.setAttribute("aria-sort", down ? "descending" : "ascending");
      const worth = (row) => (Number.isNaN(row.values[column]) ? (down ? -Infinity : Infinity) : row.values[column]);
      body.append(...[...body.rows].sort((a, b) => (down ? worth(b) - worth(a) : worth(a) - worth(b)) || a.values[0] - b.values[0]));
    };
  });
}

/* The gallery: which images, in which order. */
const cards = all("article").map((row, place) => ({ ...report.shown[place], place, row }));
const number = cards.length;
const change = (card) => (card.iou[0] === null || card.iou[1] === null ? 0 : card.iou[1] - card.iou[0]);
const last = (iou) => iou ?? 2;  // an image without a score comes last
const truth = Object.keys(report.confusion[0]).length > 0;
const ORDERS = !truth ? []
  : two ? [["largest difference", (a, b) => a.place - b.place], ["B better", (a, b) => change(b) - change(a)], ["A better", (a, b) => change(a) - change(b)]]
  : [["worst first", (a, b) => a.place - b.place], ["best first", (a, b) => (b.iou[0] ?? -1) - (a.iou[0] ?? -1)]];
ORDERS.push(["by name", (a, b) => (a.name < b.name ? -1 : 1)]);
let cell = null;  // of a confusion matrix: {side, title, entry}
let visible = [];

function pixelsIn(card, { side, title, entry }) {
  const pairs = card.confusion[side][title] ?? [];
  for (let i = 0; i < pairs.length; i += 2) if (pairs[i] === entry) return pairs[i + 1];
  return 0;
}

function filter() {
  const [wanted, id] = [find("#name").value.trim().toLowerCase(), find("#class").value];
  const order = cell ? (a, b) => pixelsIn(b, cell) - pixelsIn(a, cell) : ORDERS[find("#order").value][1];
  const keep = (card) => (id === "" || card.classes.includes(Number(id))) && card.name.toLowerCase().includes(wanted) && (!cell || pixelsIn(card, cell) > 0);
  visible = cards.filter(keep).sort((a, b) => order(a, b) || a.place - b.place);
  const shown = new Set(visible);
  for (const card of cards) card.row.hidden = !shown.has(card);
  find("#gallery").append(...visible.map((card) => card.row));
  for (const card of cards) card.row.tabIndex = card === visible[0] ? 0 : -1;
  find("#order").disabled = cell !== null;
  find("output").textContent = `showing ${visible.length} of ${number} (of ${report.images} images)`;
}

function choose(chosen) {
  cell = chosen;
  const button = find("#cell");
  button.hidden = !cell;
  if (cell) {
    const [true_, said] = [Math.floor(cell.entry / classes.length), cell.entry % classes.length];
    button.textContent = `${letters[cell.side]} ${cell.title}: ${classes[true_].name} → ${classes[said].name} ✕`.trim();
    button.setAttribute("aria-label", `${button.textContent.slice(0, -2)}: show all images again`);
  }
  for (const one of all(".matrix button")) one.setAttribute("aria-pressed", cell !== null && one.entry === cell.entry);
  filter();
  if (cell) {
    find("#gallery").scrollIntoView();
    button.focus({ preventScroll: true });
  }
}

ORDERS.forEach(([name], value) => find("#order").append(make("option", { value }, name)));
for (const id of [...new Set(cards.flatMap((card) => card.classes))].sort((a, b) => a - b)) {
  const count = cards.filter((card) => card.classes.includes(id)).length;
  find("#class").append(make("option", { value: id }, `${classes[id].name} (${count})`));
}
for (const control of all("#class, #name, #order")) control.oninput = control.onchange = filter;
find("#cell").onclick = () => choose(null);

/* What lies over the photographs: all by rules of style, so that nothing is drawn anew. */
const hiddenClasses = new Set();
const hiddenColumns = new Set();
const columnNames = all(".columns span").map((span) => span.textContent);

function restyle() {
  const rules = [...hiddenClasses].map((id) => `.layer .c${id} { display: none; }`);
  rules.push(...[...hiddenColumns].map((column) => `.k${column} { display: none; }`));
  rules.push(`.tiles { --columns: ${columnNames.length - hiddenColumns.size} !important; }`);
  find("#toggles").textContent = rules.join("\n");
  for (const box of all("input[data-class]")) box.checked = !hiddenClasses.has(Number(box.dataset.class));
  for (const box of all("input[data-column]")) box.checked = !hiddenColumns.has(Number(box.dataset.column));
}
const toggle = (set, item, shown) => {
  if (shown) set.delete(item);
  else set.add(item);
  restyle();
};
function classBox(id) {
  const box = make("input", { type: "checkbox", "data-class": id });
  box.checked = !hiddenClasses.has(id);
  box.onchange = () => toggle(hiddenClasses, id, box.checked);
  const [swatch, name] = id === 255 ? [make("i", { class: "swatch", style: "background: #e0e0c0" }), "ignored"] : className(id);
  return make("label", {}, box, make("span", {}, swatch, name));
}
function setOpacity(value) {
  root.style.setProperty("--opacity", value / 100);
  for (const slider of all(".opacity")) slider.value = value;
}
function setLayers(shown) {
  root.classList.toggle("bare", !shown);
  find("#layers").checked = shown;
}
columnNames.forEach((name, column) => {
  const box = make("input", { type: "checkbox", "data-column": column });
  box.checked = true;
  box.onchange = () => toggle(hiddenColumns, column, box.checked);
  find("#shown-columns").append(make("label", {}, box, name));
});
const inLayers = [...new Set(all("article .layer i").map((part) => Number(part.className.slice(1))))].sort((a, b) => a - b);
find("#shown-classes").append(...inLayers.map(classBox));
find("#all-classes").onclick = () => { hiddenClasses.clear(); restyle(); };
find("#no-classes").onclick = () => { inLayers.forEach((id) => hiddenClasses.add(id)); restyle(); };
find("#layers").onchange = (event) => setLayers(event.target.checked);
for (const slider of all(".opacity")) slider.oninput = () => setOpacity(slider.value);

/* The confusion matrix. Arrow keys move through it; Enter or a click shows a cell's images. */
function drawMatrix() {
  const { side, title } = matrices[find("#matrix-of").value];
  const counts = report.confusion[side][title];
  const table = make("table", {}, make("thead", {}, make("tr", {}, make("th", {}, "true \\ said"), ...classes.map(({ name }) => make("th", { scope: "col" }, make("span", {}, name))))));
  const body = table.createTBody();
  counts.forEach((row, true_) => {
    const sum = row.reduce((total, pixels) => total + pixels, 0);
    const cells = row.map((pixels, said) => {
      const share = sum ? pixels / sum : 0;
      const text = `${classes[true_].name} → ${classes[said].name}: ${percent(share)} %`;
      const button = make("button", { type: "button", title: text, "aria-label": text, "aria-pressed": false, tabindex: true_ || said ? -1 : 0,
        style: `--share: ${share && Math.sqrt(share)}; --tint: var(${true_ === said ? "--third" : "--second"})` }, share >= 0.005 ? (100 * share).toFixed(0) : "");
      button.entry = true_ * classes.length + said;
      button.onclick = () => choose({ side, title, entry: button.entry });
      return make("td", {}, button);
    });
    body.append(make("tr", {}, make("th", { scope: "row", title: classes[true_].name }, ...className(true_)), ...cells));
  });
  table.onkeydown = (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -classes.length, ArrowDown: classes.length }[event.key];
    const buttons = all("button", body);
    const next = buttons[buttons.indexOf(event.target) + step];
    if (!step || !next) return;
    event.preventDefault();
    event.stopPropagation();
    event.target.tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  };
  find(".matrix").replaceChildren(table);
  find(".matrix").classList.toggle("many", classes.length > 25);
}
const matrices = report.confusion.flatMap((titles, side) => Object.keys(titles).map((title) => ({ side, title })));
if (matrices.length) {
  matrices.forEach(({ side, title }, value) => find("#matrix-of").append(make("option", { value }, `${letters[side]} ${title}`.trim())));
  find("#matrix-of").onchange = () => { choose(null); drawMatrix(); };
  drawMatrix();
  for (const item of all("[data-entry]")) {
    const button = make("button", { type: "button" }, item.textContent);
    const side = letters.indexOf(item.dataset.side);
    const { title, entry } = item.dataset;
    button.onclick = () => {
      find("#matrix-of").value = matrices.findIndex((matrix) => matrix.side === side && matrix.title === title);
      drawMatrix();
      choose({ side, title, entry: Number(entry) });
    };
    item.replaceWith(button);
  }
}

/* One image, large. Zoom and place are those of all its tiles. */
const viewer = find("dialog");
const view = { zoom: 1, x: 0, y: 0 };
let open = null;  // the card

function look(zoom, x, y) {
  view.zoom = Math.min(16, Math.max(1, zoom));
  const inside = (value) => Math.min(0, Math.max(100 * (1 - view.zoom), value));
  [view.x, view.y] = [inside(x), inside(y)];
  for (const [name, value] of Object.entries(view)) viewer.style.setProperty(`--${name}`, value);
}
/** Zoom about a point of a tile, whose sides are 100. */
function zoomAt(factor, x = 50, y = 50) {
  const zoom = Math.min(16, Math.max(1, view.zoom * factor));
  look(zoom, x - (x - view.x) * zoom / view.zoom, y - (y - view.y) * zoom / view.zoom);
}
function enlarge(card) {
  open = card;
  look(1, 0, 0);
  find("h3", viewer).textContent = card.name;
  find(".iou", viewer).textContent = all(".iou", card.row).map((line) => line.textContent).filter(Boolean).join(", ");
  const tiles = find(".tiles", card.row).cloneNode(true);
  for (const name of ["--ratio", "--photograph"]) tiles.style.setProperty(name, card.row.style.getPropertyValue(name));
  find(".place", viewer).replaceChildren(tiles);
  const ids = [...new Set(all(".layer i", tiles).map((part) => Number(part.className.slice(1))))].sort((a, b) => a - b);
  find(".of-image", viewer).replaceChildren(make("legend", {}, "Classes"), ...ids.map(classBox));
  if (!viewer.open) viewer.showModal();
}
const neighbour = (card, step) => visible[visible.indexOf(card) + step];
function go(step) {
  const next = neighbour(open, step);
  if (next) enlarge(next);
}
const DO = { previous: () => go(-1), next: () => go(1), in: () => zoomAt(1.5), out: () => zoomAt(1 / 1.5), fit: () => look(1, 0, 0), close: () => viewer.close() };
for (const button of all("[data-do]")) button.onclick = DO[button.dataset.do];
viewer.addEventListener("close", () => focusOn(open));

function focusOn(card) {
  for (const one of visible) one.row.tabIndex = one === card ? 0 : -1;
  card.row.focus();
}
for (const card of cards) {
  for (const stack of all(".stack", card.row)) stack.onclick = () => enlarge(card);
  card.row.onkeydown = (event) => {
    if (event.target !== card.row) return;
    const next = neighbour(card, { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1 }[event.key]);
    if (event.key === "Enter") enlarge(card);
    else if (next) focusOn(next);
    else return;
    event.preventDefault();
  };
}

/** Where a pointer is on its tile, whose sides are 100. */
function place(event, tile) {
  const box = tile.getBoundingClientRect();
  return { x: 100 * (event.clientX - box.left) / box.width, y: 100 * (event.clientY - box.top) / box.height };
}
viewer.addEventListener("wheel", (event) => {
  const tile = event.target.closest(".stack");
  if (!tile) return;
  event.preventDefault();
  const { x, y } = place(event, tile);
  zoomAt(Math.exp(-event.deltaY / 400), x, y);
}, { passive: false });
const fingers = new Map();
viewer.addEventListener("pointerdown", (event) => {
  const tile = event.target.closest(".stack");
  if (!tile) return;
  fingers.set(event.pointerId, { tile, at: place(event, tile) });
});
viewer.addEventListener("pointermove", (event) => {
  const finger = fingers.get(event.pointerId);
  if (!finger) return;
  const [before, now] = [finger.at, place(event, finger.tile)];
  finger.at = now;
  const other = [...fingers.entries()].find(([id]) => id !== event.pointerId)?.[1].at;
  if (other) {
    const apart = (one) => Math.hypot(one.x - other.x, one.y - other.y) || 1;
    zoomAt(apart(now) / apart(before), (now.x + other.x) / 2, (now.y + other.y) / 2);
  } else look(view.zoom, view.x + now.x - before.x, view.y + now.y - before.y);
});
for (const end of ["pointerup", "pointercancel"]) addEventListener(end, (event) => fingers.delete(event.pointerId));
viewer.addEventListener("dblclick", (event) => {
  const tile = event.target.closest(".stack");
  if (!tile) return;
  const { x, y } = place(event, tile);
  zoomAt(2, x, y);
});

addEventListener("keydown", (event) => {
  const typing = event.target.matches?.("select, input[type=search], input[type=range]");
  if (event.ctrlKey || event.metaKey || event.altKey || (typing && event.key !== "Escape")) return;
  const arrow = { ArrowLeft: [20, 0], ArrowRight: [-20, 0], ArrowUp: [0, 20], ArrowDown: [0, -20] }[event.key];
  if (/^[1-9]$/.test(event.key) && Number(event.key) <= columnNames.length) toggle(hiddenColumns, Number(event.key) - 1, hiddenColumns.has(Number(event.key) - 1));
  else if (event.key === "o") setLayers(root.classList.contains("bare"));
  else if (event.key === "Escape" && !viewer.open && cell) choose(null);
  else if (!viewer.open) return;
  else if (event.key === "+" || event.key === "=") DO.in();
  else if (event.key === "-") DO.out();
  else if (event.key === "0") DO.fit();
  else if (arrow && event.shiftKey) look(view.zoom, view.x + arrow[0], view.y + arrow[1]);
  else if (event.key === "ArrowLeft") DO.previous();
  else if (event.key === "ArrowRight") DO.next();
  else return;
  event.preventDefault();
});

// A browser may have kept what was chosen before a reload.
setOpacity(find(".opacity").value);
setLayers(find("#layers").checked);
restyle();
filter();
