"use strict";
// Tables of a page: sort, filter, download; and what paper needs.
const FILE = document.body.dataset.file;

function make(tag, values = {}, ...inner) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(values)) {
    if (value === null || value === undefined || value === false) continue;
    if (key === "text") node.textContent = value;
    else if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...inner);
  return node;
}
function download(name, text) {
  const link = make("a", {
    href: URL.createObjectURL(new Blob([text], {type: "text/csv;charset=utf-8"})), download: name});
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}
function csvCell(value) {
  const text = String(value ?? "");
  // As the files of the results: no spreadsheet program takes a text for a formula.
  const safe = /^[=+\-@\t\r]/.test(text) && !/^[+-]?[\d.]+(e[+-]?\d+)?$/i.test(text) ? "'" + text : text;
  return /[",\n\r]/.test(safe) ? '"' + safe.replaceAll('"', '""') + '"' : safe;
}
const asCsv = (rows) => rows.map((row) => row.map(csvCell).join(",") + "\n").join("");
const textOf = (cell) => cell.textContent.trim().replace(/\s+/g, " ");
// The shown rows in their order, with a column more for each whose cells have intervals.
function shownRows(made) {
  const body = made.rows({search: "applied", order: "applied"}).nodes().toArray().map((row) => [...row.cells]);
  const heads = made.columns().header().toArray();
  const bounded = heads.map((_, at) => body.some((row) => row[at].dataset.interval !== undefined));
  const spread = (values, more) => values.flatMap((value, at) => bounded[at] ? [value, more(at)] : [value]);
  const names = heads.map((head) => head.dataset.title ?? textOf(head));
  return [spread(names, (at) => names[at] + ", 95% interval"),
    ...body.map((row) => spread(row.map((cell) => cell.dataset.value ?? textOf(cell)), (at) => row[at].dataset.interval ?? ""))];
}

const paged = [];
function enhance(table) {
  const rows = table.tBodies[0].rows.length;
  const name = table.dataset.name;
  const made = new DataTable(table, {
    order: [], autoWidth: false, paging: rows > 25, pageLength: 25,
    lengthMenu: [25, 100, {label: "all", value: -1}], searching: rows > 5, info: rows > 25,
    layout: {topStart: rows > 25 ? "pageLength" : null, topEnd: rows > 5 ? "search" : null,
      bottomStart: rows > 25 ? "info" : null, bottomEnd: rows > 25 ? "paging" : null},
    language: {search: "Filter:", lengthMenu: "_MENU_ rows", info: "_START_ to _END_ of _TOTAL_",
      infoEmpty: "none", infoFiltered: "(of _MAX_)", emptyTable: "None.", zeroRecords: "No row matches.",
      paginate: {first: "first", last: "last", next: "next", previous: "previous"}}});
  if (rows > 25) paged.push(made);
  const button = make("button", {type: "button", class: "small", text: "Download CSV",
    "aria-label": "Download this table as CSV: " + name.replaceAll("_", " "),
    onclick: () => download(FILE + "_" + name + ".csv", asCsv(shownRows(made)))});
  table.closest(".scroll").after(button);
}
let printing = false;
for (const table of document.querySelectorAll("table.data")) {
  const folded = table.closest("details:not([open])");
  if (!folded) { enhance(table); continue; }
  // Most readers open few of them, and each takes its time.
  folded.addEventListener("toggle", function opened() {
    if (printing || !folded.open) return;
    folded.removeEventListener("toggle", opened);
    enhance(table);
  });
}

// On paper everything is open, and tables have all of their rows.
let unfolded = [];
let lengths = [];
addEventListener("beforeprint", () => {
  printing = true;
  unfolded = [...document.querySelectorAll("details:not([open])")];
  for (const part of unfolded) part.open = true;
  lengths = paged.map((made) => made.page.len());
  for (const made of paged) made.page.len(-1).draw(false);
});
addEventListener("afterprint", () => {
  printing = false;
  for (const part of unfolded) part.open = false;
  paged.forEach((made, number) => made.page.len(lengths[number]).draw(false));
});
