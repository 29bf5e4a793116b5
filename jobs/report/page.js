"use strict";

// Tables: a button in each heading sorts by its column, first the best or the first, then the other way, then as it was.
function cellOf(row, column) {
  const cell = row.cells[column];
  const number = cell.dataset.value;
  return number === undefined ? cell.textContent.trim() : Number(number);
}

function compare(a, b) {
  if (a === "" || b === "") return 0;
  if (typeof a === "number" && typeof b === "number") return a - b;
  return String(a).localeCompare(String(b), undefined, { numeric: true });
}

function makeSortable(table) {
  const heads = [...table.tHead.rows[0].cells];
  const body = table.tBodies[0];
  const original = [...body.rows];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    head.setAttribute("aria-sort", "none");
    const numbers = original.some((row) => typeof cellOf(row, column) === "number");
    const orders = numbers ? ["descending", "ascending", "none"] : ["ascending", "descending", "none"];
    button.addEventListener("click", () => {
      const order = orders[(orders.indexOf(head.getAttribute("aria-sort")) + 1) % orders.length];
      heads.forEach((other) => other.setAttribute("aria-sort", "none"));
      head.setAttribute("aria-sort", order);
      table.classList.toggle("sorted", order !== "none");
      const sign = order === "descending" ? -1 : 1;
      const isEmpty = (row) => ["", "-"].includes(cellOf(row, column));
      const full = original.filter((row) => !isEmpty(row));
      full.sort((a, b) => sign * compare(cellOf(a, column), cellOf(b, column)));
      body.append(...(order === "none" ? original : [...full, ...original.filter(isEmpty)]));
    });
  });
}

// Contents: the section that is read.
function markSection() {
  const links = new Map([...document.querySelectorAll("nav.contents a")].map((a) => [a.hash.slice(1), a]));
  const anchors = [...document.querySelectorAll("main h2[id], main h3[id]")];
  const nav = document.querySelector("nav.contents");
  let current;
  const update = () => {
    const read = anchors.filter((anchor) => anchor.getBoundingClientRect().top < innerHeight / 3).pop();
    const link = links.get(read ? read.id : "top");
    if (link === current) return;
    current?.removeAttribute("aria-current");
    link.setAttribute("aria-current", "true");
    nav.scrollTop = link.offsetTop - nav.clientHeight / 2;
    current = link;
  };
  addEventListener("scroll", update, { passive: true });
  update();
}

// Charts: Vega-Lite without eval, as wide as the page; colors of text and lines are in page.css.
const font = 'system-ui, -apple-system, "Segoe UI", Roboto, sans-serif';

// A long name takes two lines where there is little room.
const twoLines =
  "length(datum.label) <= 17 ? datum.label : " +
  "[slice(datum.label, 0, 16), length(datum.label) > 32 ? slice(datum.label, 16, 31) + '…' : slice(datum.label, 16)]";

function settings(width) {
  const narrow = width < 500;
  const names = narrow
    ? { labelFontSize: 12, labelLimit: 120, labelLineHeight: 12, labelExpr: twoLines }
    : { labelFontSize: 13, labelLimit: 300 };
  const axis = { labelFontSize: 12, titleFontSize: 12, titleFontWeight: "normal", titlePadding: 8, labelPadding: 6 };
  const columns = Math.max(1, Math.floor(width / (narrow ? 170 : 210)));
  return {
    font,
    background: null,
    view: { stroke: null },
    axis,
    axisYDiscrete: names,
    axisX: { labelFlush: false },
    axisXQuantitative: { tickCount: narrow ? 5 : 8 },
    legend: { orient: "bottom", columns, title: null, labelFontSize: 12.5, labelLimit: 0.8 * (width / columns), symbolSize: 90, symbolStrokeWidth: 0, offset: 12 },
    title: { anchor: "start", fontSize: 12.5, fontWeight: "normal" },
    style: { reference: { color: "#8b929b" } },
  };
}

// Maps: the image of the point under the pointer, a tile of the page's sheet.
function showImages(view, map) {
  const box = map.querySelector(".thumbnail");
  const [tile, name] = box.children;
  const across = Number(map.dataset.across);
  const place = (i) => `${(100 * i) / Math.max(1, across - 1)}%`;
  const show = (event, item) => {
    const point = item?.datum;
    box.hidden = point?.tile === undefined;
    if (box.hidden) return;
    tile.style.backgroundPosition = `${place(point.tile % across)} ${place(Math.floor(point.tile / across))}`;
    name.textContent = point.class;
    const { clientX: x, clientY: y } = event.changedTouches?.[0] ?? event;
    box.style.left = `${Math.min(x + 14, document.documentElement.clientWidth - box.offsetWidth - 4)}px`;
    box.style.top = `${y > box.offsetHeight + 18 ? y - box.offsetHeight - 14 : y + 18}px`;
  };
  ["mousemove", "click", "touchstart"].forEach((kind) => view.addEventListener(kind, show));
  map.onmouseleave = () => (box.hidden = true);
}

const views = new Map();

async function draw(place) {
  const spec = JSON.parse(place.querySelector("script").textContent);
  views.get(place)?.finalize();
  place.querySelector(".plot")?.remove();
  const plot = place.appendChild(document.createElement("div"));
  plot.className = "plot";
  try {
    const config = settings(place.clientWidth);
    const tooltip = { disableDefaultStyle: true };
    const options = { ast: true, actions: false, defaultStyle: false, renderer: "svg", config, tooltip };
    const drawn = await vegaEmbed(plot, spec, options);
    views.set(place, drawn);
    const map = place.closest(".map");
    if (map) showImages(drawn.view, map);
  } catch (error) {
    plot.textContent = `This chart could not be drawn: ${error.message}`;
  }
  place.classList.add("drawn");
}

let round = 0;

async function drawAll() {
  const mine = ++round;
  for (const place of document.querySelectorAll(".chart")) {
    if (mine !== round) return; // the page has another width by now
    await draw(place);
  }
  if (mine === 1 && location.hash) document.getElementById(decodeURIComponent(location.hash.slice(1)))?.scrollIntoView();
}

document.querySelectorAll("table.sortable").forEach(makeSortable);
markSection();
if (typeof vegaEmbed !== "function") {
  document.querySelectorAll(".chart").forEach((place) => place.remove()); // a line at the top says why
} else {
  let width = document.documentElement.clientWidth;
  let waiting;
  addEventListener("resize", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => {
      if (width === document.documentElement.clientWidth) return;
      width = document.documentElement.clientWidth;
      drawAll();
    }, 200);
  });
  drawAll();
}
