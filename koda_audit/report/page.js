"use strict";
// Sorting and filtering of every table. Cells carry data-value where they hold a number; all else sorts as text.
// A click sorts upwards, then downwards, then as the report had it; what is not defined stays last.
const NEXT = { none: "ascending", ascending: "descending", descending: "none" };
const collator = new Intl.Collator("en", { numeric: true });

function compare(a, b) {
  if (typeof a === typeof b) return typeof a === "number" ? a - b : collator.compare(a, b);
  return typeof a === "number" ? -1 : 1;
}

function keyOf(cell) {
  if (cell.dataset.value !== undefined) return Number(cell.dataset.value);
  return cell.textContent === "–" ? null : cell.textContent;
}

function enliven(section, table) {
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  const original = [...body.rows];
  const step = Number(table.dataset.shown);
  const selects = [...section.querySelectorAll(".controls select")];
  const search = section.querySelector(".controls input");
  const count = section.querySelector(".controls output");
  const more = section.querySelector(".more button");
  const texts = new Map();
  let rows = original;
  let limit = step;

  function textOf(row) {
    if (!texts.has(row)) texts.set(row, [...row.cells].map((cell) => cell.textContent).join(" ").toLowerCase());
    return texts.get(row);
  }

  function show() {
    const chosen = selects.filter((select) => select.value).map((select) => [select.dataset.column, select.value]);
    const words = search ? search.value.toLowerCase().split(/\s+/).filter(Boolean) : [];
    let matching = 0;
    for (const row of rows) {
      const matches = chosen.every(([column, value]) => row.cells[column].textContent === value)
        && words.every((word) => textOf(row).includes(word));
      if (matches) matching += 1;
      row.hidden = !matches || matching > limit;
    }
    if (count) count.textContent = matching < rows.length ? `${matching} of ${rows.length} rows` : `${matching} rows`;
    if (more) more.hidden = matching <= limit;
  }

  function sort(head) {
    const next = NEXT[head.getAttribute("aria-sort")];
    for (const other of heads) other.setAttribute("aria-sort", "none");
    head.setAttribute("aria-sort", next);
    rows = original;
    if (next !== "none") {
      const sign = next === "ascending" ? 1 : -1;
      const column = heads.indexOf(head);
      const keyed = original.map((row) => [keyOf(row.cells[column]), row]);
      const known = keyed.filter(([key]) => key !== null).sort(([a], [b]) => sign * compare(a, b));
      rows = [...known, ...keyed.filter(([key]) => key === null)].map(([, row]) => row);
    }
    const fragment = document.createDocumentFragment();
    for (const row of rows) fragment.appendChild(row);
    body.appendChild(fragment);
    show();
  }

  for (const head of heads) head.firstElementChild.addEventListener("click", () => sort(head));
  for (const control of [...selects, search].filter(Boolean)) {
    control.addEventListener("input", () => { limit = step; show(); });
  }
  if (more) more.addEventListener("click", () => { limit += step; show(); });
  show(); // a browser may bring back what was chosen before a reload
}

for (const section of document.querySelectorAll("section")) {
  const table = section.querySelector("table");
  if (table) enliven(section, table);
}
if (matchMedia("(max-width: 63.99rem)").matches) document.querySelector("nav details").open = false;
