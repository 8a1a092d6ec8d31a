"use strict";
// The page works on the JSON below; text enters it as text only, never as HTML.
const data = JSON.parse(document.getElementById("data").textContent);
const $ = (name) => document.getElementById(name);
const SVG = "http://www.w3.org/2000/svg";

function draw(tag, values, text) {
  const node = document.createElementNS(SVG, tag);
  for (const [key, value] of Object.entries(values)) node.setAttribute(key, value);
  if (text !== undefined) node.textContent = text;
  return node;
}
const percent = (share) => share === null ? "–" : (100 * share).toFixed(1) + "%";
function number(value) {
  if (value === null || value === undefined) return "–";
  return Number.isInteger(value) ? value.toLocaleString("en") : String(Number(value.toPrecision(3)));
}
const shown = (value, unit) => unit === "share" ? percent(value)
  : value === null ? "–" : number(value) + (unit ? " " + unit : "");
const plural = (count, noun, many) => number(count) + " " + (count === 1 ? noun : many || noun + "s");

// The list of what to drop.
async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = make("textarea", {style: "position:fixed;opacity:0"});
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
}
function announce(node, text) {
  node.textContent = text;
  setTimeout(() => { if (node.textContent === text) node.textContent = ""; }, 4000);
}
for (const button of document.querySelectorAll("[data-drops]")) {
  button.addEventListener("click", async () => {
    if (button.dataset.drops === "copy") await copy(data.drops);
    else download(FILE + "_drop.csv", data.drops);
    announce($("drops-said"), button.dataset.drops === "copy" ? "Copied." : "Downloaded.");
  });
}

// Crops: tiles of the sheets.
const crops = data.crops;
const cropAt = new Map(crops.id.map((id, at) => [id, at]));
const cropsOfField = new Map();
crops.id.forEach((_, at) => {
  const key = crops.well[at] + "/" + crops.site[at];
  if (!cropsOfField.has(key)) cropsOfField.set(key, []);
  cropsOfField.get(key).push(at);
});
const TILE_ZOOM = 96 / crops.tile;
function tile(at, zoom = TILE_ZOOM) {
  const [sheet, left, top] = crops.at[at];
  return make("span", {class: "tile s" + sheet, role: "img", "aria-label": cropName(at),
    style: `background-position:-${left}px -${top}px;zoom:${zoom}`});
}
function cropName(at) {
  const kind = crops.artefact[at];
  return `Crop ${crops.id[at]}, score ${crops.score[at].toFixed(3)}` +
    (crops.flagged[at] ? ", flagged" + (kind ? ": " + kind : "") : ", passed");
}
function channelTile(at, zoom) {
  const place = crops.channels[at];
  if (!place) return null;
  const [sheet, left, top] = place;
  return make("span", {class: "tile c" + sheet, role: "img",
    "aria-label": "Channels " + data.channels.join(", "),
    style: `background-position:-${left}px -${top}px;width:${crops.tile * data.channels.length}px;zoom:${zoom}`});
}

// Plate maps.
const wells = data.wells;
const fields = data.fields;
// cividis, which looks alike to people who do not see all colours, at equal steps.
const COLOURS = [[0, 34, 78], [31, 58, 109], [87, 93, 109], [123, 124, 117], [165, 156, 116],
  [209, 187, 89], [254, 232, 56]];
function colour(share) {
  const place = Math.min(Math.max(share, 0), 1) * (COLOURS.length - 1);
  const low = Math.min(Math.floor(place), COLOURS.length - 2);
  const mixed = COLOURS[low].map((c, i) => Math.round(c + (place - low) * (COLOURS[low + 1][i] - c)));
  return `rgb(${mixed.join(",")})`;
}
const letters = (row) => (row >= 26 ? "A" : "") + String.fromCharCode(65 + row % 26);
const treatment = (at) => {
  const name = wells.compound[at];
  const amount = wells.concentration_um[at];
  if (name === null) return wells.role[at] === "mock" ? "control (mock)" : wells.role[at] || "no treatment given";
  return name + (amount === null ? "" : ` at ${number(amount)} µM`);
};
let plate = 0;
let measure = 0;
let chosenWell = null;
const buttons = new Map();
function wellText(at) {
  const parts = [wells.well[at]];
  const own = data.measures[measure];
  if (own) parts.push(`${own.name}: ${shown(own.values[at], own.unit)}`);
  parts.push(treatment(at));
  if (wells.bad[at]) parts.push("bad well: " + (wells.reason[at] || "no reason given"));
  return parts.join("; ");
}
function drawMap() {
  const grid = $("map");
  const [top, bottom, left, right] = data.part;
  const columns = right - left;
  grid.replaceChildren();
  buttons.clear();
  grid.style.setProperty("--columns", columns);
  grid.classList.toggle("large", columns <= 12);
  const title = make("div", {role: "row"}, make("span", {role: "columnheader", class: "corner", "aria-label": "Row"}));
  for (let column = left; column < right; column++)
    title.append(make("span", {role: "columnheader", text: column + 1}));
  grid.append(title);
  const own = data.measures[measure];
  const places = new Map();
  wells.well.forEach((_, at) => {
    if (wells.plate[at] === plate && wells.row[at] >= 0) places.set(wells.row[at] + "/" + wells.column[at], at);
  });
  for (let row = top; row < bottom; row++) {
    const line = make("div", {role: "row"}, make("span", {role: "rowheader", text: letters(row)}));
    for (let column = left; column < right; column++) {
      const at = places.get(row + "/" + column);
      if (at === undefined) {
        line.append(make("span", {role: "gridcell", class: "well out", "aria-label": letters(row) + (column + 1) + ": not imaged"}));
        continue;
      }
      const value = own ? own.values[at] : null;
      const [low, high] = own ? own.ends : [0, 1];
      const share = value === null ? null : (value - low) / (high - low);
      const button = make("button", {type: "button", class: "well", tabindex: -1, "aria-label": wellText(at),
        "data-at": at});
      if (share === null) button.classList.add("none");
      else button.style.backgroundColor = colour(share);
      if (share > 0.55) button.classList.add("light");
      if (wells.bad[at]) button.classList.add("bad");
      const inside = columns > 12 || value === null ? "" :
        own.unit === "share" ? (100 * value).toFixed(value < 0.1 ? 1 : 0) : number(Number(value.toPrecision(3)));
      button.append(make("span", {"aria-hidden": "true", class: "value", text: inside}));
      if (wells.bad[at]) button.append(make("span", {"aria-hidden": "true", class: "cross", text: "✕"}));
      buttons.set(at, button);
      line.append(make("span", {role: "gridcell"}, button));
    }
    grid.append(line);
  }
  const first = buttons.has(chosenWell) ? buttons.get(chosenWell) : buttons.values().next().value;
  if (first) first.tabIndex = 0;
  if (buttons.has(chosenWell)) buttons.get(chosenWell).setAttribute("aria-pressed", "true");
  if (own) {
    $("low").textContent = shown(own.ends[0], own.unit);
    $("high").textContent = shown(own.ends[1], own.unit) + " or more";
    $("unit").textContent = own.name + (own.unit === "share" && columns <= 12 ? " (numbers: %)" : "");
  }
}
function focusWell(button) {
  for (const other of buttons.values()) other.tabIndex = -1;
  button.tabIndex = 0;
  button.focus();
}
function setUpMap() {
  if (!wells.well.length) return;
  const picker = $("measure");
  data.measures.forEach((own, at) => picker.append(make("option", {value: at, text: own.name})));
  picker.addEventListener("change", () => { measure = Number(picker.value); drawMap(); });
  const plates = $("plate");
  if (plates) {
    data.plates.forEach((one, at) => plates.append(make("option", {value: at, text: one.name})));
    plates.addEventListener("change", () => { plate = Number(plates.value); chosenWell = null; $("well").replaceChildren(); drawMap(); });
    plate = data.first;
    plates.value = plate;
  }
  const grid = $("map");
  const tell = (event) => {
    const button = event.target.closest("button.well");
    if (button) $("readout").textContent = wellText(Number(button.dataset.at));
  };
  grid.addEventListener("mouseover", tell);
  grid.addEventListener("focusin", tell);
  grid.addEventListener("click", (event) => {
    const button = event.target.closest("button.well");
    if (button) openWell(Number(button.dataset.at));
  });
  grid.addEventListener("keydown", (event) => {
    const steps = {ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1]};
    const button = event.target.closest("button.well");
    if (!button) return;
    const at = Number(button.dataset.at);
    const order = [...buttons.keys()].sort((a, b) => wells.row[a] - wells.row[b] || wells.column[a] - wells.column[b]);
    let next;
    if (event.key === "Home") next = order[0];
    else if (event.key === "End") next = order[order.length - 1];
    else if (steps[event.key]) {
      const [down, right] = steps[event.key];
      // The nearest well in that direction: wells that were not imaged are passed over.
      next = order.filter((other) => down ? wells.column[other] === wells.column[at] && (wells.row[other] - wells.row[at]) * down > 0
        : wells.row[other] === wells.row[at] && (wells.column[other] - wells.column[at]) * right > 0)
        .sort((a, b) => Math.abs(wells.row[a] - wells.row[at]) + Math.abs(wells.column[a] - wells.column[at])
          - Math.abs(wells.row[b] - wells.row[at]) - Math.abs(wells.column[b] - wells.column[at]))[0];
    } else return;
    event.preventDefault();
    if (next !== undefined) focusWell(buttons.get(next));
  });
  drawMap();
}

// A well, its fields, and a field's crops.
function facts(rows) {
  const list = make("dl");
  for (const [name, value] of rows) list.append(make("dt", {text: name}), make("dd", {text: value}));
  return list;
}
function openWell(at, site) {
  chosenWell = at;
  for (const [other, button] of buttons) button.toggleAttribute("aria-pressed", other === at);
  if (buttons.has(at)) buttons.get(at).setAttribute("aria-pressed", "true");
  const panel = $("well");
  const one = data.plates[wells.plate[at]];
  const head = make("h3", {id: "well-name", tabindex: -1, text: `Well ${wells.well[at]}` + (data.plates.length > 1 ? ` of plate ${one.name}` : "")});
  panel.replaceChildren(head, facts([
    ["Treatment", treatment(at)],
    ["Flagged cells", `${percent(wells.flagged_share[at])} (${number(wells.flagged[at])} of ${number(wells.scored[at])} scored)`],
    ["Usual on this plate", percent(wells.expected[at])],
    ["Mostly", wells.artefact[at] || "–"],
    ["Nuclei found", number(wells.nuclei[at])],
    ["Verdict", wells.bad[at] ? "✕ bad: " + (wells.reason[at] || "no reason given") : "not bad"]]));
  if (one.page) {
    panel.append(make("p", {}, make("a", {href: one.page + "#well=" + encodeURIComponent(wells.well[at]),
      text: `Fields and crops of ${wells.well[at]}, on the page of plate ${one.name}`})));
  } else {
    panel.append(make("p", {class: "muted", text: "Choose a field to see its crops. Circles are flagged nuclei."}));
    const list = make("div", {class: "fields"});
    fields.at.forEach((well, row) => { if (well === at) list.append(fieldButton(row)); });
    panel.append(list, make("div", {id: "field", "aria-live": "polite"}));
  }
  if (!one.page) history.replaceState(null, "", "#well=" + encodeURIComponent(wells.well[at]));
  panel.scrollIntoView({block: "nearest", behavior: "auto"});
  if (site !== undefined) {
    const row = fields.at.findIndex((well, place) => well === at && fields.site[place] === site);
    if (row >= 0) openField(row);
  }
}
function outlinesOf(row) {
  const picture = data.pictures[row];
  if (!picture) return [];
  const bytes = Uint8Array.from(atob(picture.nuclei), (sign) => sign.charCodeAt(0));
  const found = [];
  for (let at = 0; at + 5 <= bytes.length; at += 5)
    found.push({x: bytes[at] / 255 * picture.width, y: bytes[at + 1] / 255 * picture.height, radius: bytes[at + 2] / 4,
      score: bytes[at + 3] / 255, kind: bytes[at + 4], crop: picture.crops[at / 5] ?? null});
  return found;
}
const fieldWords = (row) => {
  const kinds = ["empty", "out_of_focus", "saturated"].filter((name) => fields[name][row]).map((name) => name.replaceAll("_", " "));
  return `Site ${fields.site[row]}: ${plural(fields.nuclei[row], "nucleus", "nuclei")}, ${number(fields.flagged[row])} flagged` +
    (fields.bad[row] ? `; ✕ bad (${kinds.join(", ") || "flagged cells"})` : "");
};
function fieldPicture(row, large) {
  const picture = data.pictures[row];
  if (!picture) return make("span", {class: "nopicture", text: "no picture in this page"});
  const box = make("span", {class: "picture" + (large ? " big" : "")}, make("img", {src: picture.src, alt: "", width: picture.width, height: picture.height}));
  const over = draw("svg", {viewBox: `0 0 ${picture.width} ${picture.height}`, "aria-hidden": "true"});
  outlinesOf(row).forEach((one, place) => {
    const circle = draw("circle", {cx: one.x, cy: one.y, r: Math.max(one.radius * 1.3, 2.5),
      class: one.kind ? "flagged" : "passed", "data-place": place});
    over.append(circle);
  });
  box.append(over);
  return box;
}
function fieldButton(row) {
  return make("button", {type: "button", class: "field" + (fields.bad[row] ? " bad" : ""), "data-row": row, "aria-label": fieldWords(row),
    onclick: () => openField(row)}, fieldPicture(row, false), make("span", {class: "words", text: fieldWords(row)}));
}
function openField(row) {
  for (const button of document.querySelectorAll("button.field"))
    button.setAttribute("aria-pressed", String(Number(button.dataset.row) === row));
  const nuclei = outlinesOf(row);
  const places = new Map(nuclei.map((one, place) => [one.crop, place]));
  const listed = (cropsOfField.get(fields.at[row] + "/" + fields.site[row]) || []).map((at) => ({at, score: crops.score[at], place: places.get(at)}));
  nuclei.forEach((one, place) => { if (one.kind && one.crop === null) listed.push({at: null, score: one.score, place, nucleus: one}); });
  listed.sort((a, b) => b.score - a.score);
  const side = fieldPicture(row, true);
  const list = make("ul", {class: "crops", "aria-label": "Crops, highest score first"});
  const mark = (place, on) => {
    const circle = side.querySelector(`[data-place="${place}"]`);
    if (circle) circle.classList.toggle("chosen", on);
  };
  for (const one of listed) {
    const item = make("li", {class: "crop", tabindex: 0, onmouseenter: () => mark(one.place, true), onmouseleave: () => mark(one.place, false),
      onfocus: () => mark(one.place, true), onblur: () => mark(one.place, false)});
    if (one.at === null) {
      const kind = data.kinds[one.nucleus.kind - 2];
      item.append(cutOut(row, one.nucleus), make("span", {class: "words", text: `${one.score.toFixed(2)} ✕ flagged` + (kind ? ": " + kind : "") + " (from the picture)"}));
    } else {
      item.append(tile(one.at));
      const channels = channelTile(one.at, TILE_ZOOM / data.channels.length);
      if (channels) item.append(channels);
      const kind = crops.artefact[one.at];
      item.append(make("span", {class: "words", text: one.score.toFixed(3) + (crops.flagged[one.at] ? " ✕ flagged" + (kind ? ": " + kind : "") : " passed")}));
    }
    list.append(item);
  }
  const others = fields.scored[row] - listed.length;
  const note = data.pictures[row] ? "" : data.pictures_note || "This page holds no picture of the field: pictures are of bad fields, of fields with flagged cells and of a sample of the others.";
  $("field").replaceChildren(
    make("h4", {text: fieldWords(row)}), fields.reason[row] ? make("p", {text: fields.reason[row]}) : "",
    make("div", {class: "pair"}, side, make("div", {},
      make("p", {class: "muted", text: (listed.length ? `Crops by score, the highest first${data.channels.length > 1 ? `; below each its channels in grey: ${data.channels.join(", ")}` : ""}. ` : "") +
        (others > 0 ? `${plural(others, "other scored cell has", "other scored cells have")} no crop in this page. ` : "") + note}), list)));
}
function cutOut(row, nucleus) {
  const picture = data.pictures[row];
  const side = Math.max(nucleus.radius * 4, 16);
  const zoom = 96 / side;
  return make("span", {class: "cut", role: "img", "aria-label": "Cut from the picture of the field", style:
    `background-image:url(${picture.src});background-size:${picture.width * zoom}px ${picture.height * zoom}px;` +
    `background-position:${-(nucleus.x - side / 2) * zoom}px ${-(nucleus.y - side / 2) * zoom}px`});
}

// Scores: the histogram, and what another threshold would do.
function setUpScores() {
  const own = data.scores;
  if (!own.scored) return;
  const width = 640;
  const panels = Object.entries(own.histograms);
  const heights = panels.map(([name]) => name === "cells" ? 190 : 90);
  const svg = draw("svg", {viewBox: `0 0 ${width + 60} ${heights.reduce((a, b) => a + b + 26, 0) + 34}`, role: "img",
    "aria-label": `Histogram of ${number(own.scored)} scores; threshold ${number(own.threshold)}`});
  let top = 16;
  panels.forEach(([name, counts], panel) => {
    const height = heights[panel];
    const most = Math.max(...counts, 1);
    const scale = (count) => count ? Math.log10(count + 1) / Math.log10(most + 1) * height : 0;
    const total = counts.reduce((a, b) => a + b, 0);
    svg.append(draw("text", {x: 50, y: top - 4}, name === "cells" ? "cells (log scale)" : `labelled ${name} (${number(total)}; log scale)`));
    counts.forEach((count, bin) => {
      const bar = draw("rect", {x: 50 + bin * width / counts.length, y: top + height - scale(count), width: width / counts.length - 1,
        height: scale(count), class: "bar " + (name === "cells" ? "" : name)});
      bar.append(draw("title", {}, `${number(count)} with a score of ${(bin / counts.length).toFixed(2)} to ${((bin + 1) / counts.length).toFixed(2)}`));
      svg.append(bar);
    });
    svg.append(draw("line", {x1: 50, x2: 50 + width, y1: top + height, y2: top + height, class: "axis"}));
    svg.append(draw("text", {x: 46, y: top + 8, "text-anchor": "end"}, number(most)), draw("text", {x: 46, y: top + height, "text-anchor": "end"}, "0"));
    top += height + 26;
  });
  const bottom = top - 26;
  for (let tick = 0; tick <= 10; tick += 2)
    svg.append(draw("text", {x: 50 + tick * width / 10, y: bottom + 16, "text-anchor": "middle"}, (tick / 10).toFixed(1)));
  svg.append(draw("text", {x: 50 + width / 2, y: bottom + 34, "text-anchor": "middle"}, "score of the detector (1: surely abnormal)"));
  const line = (level, name) => draw("line", {x1: 50 + level * width, x2: 50 + level * width, y1: 16, y2: bottom, class: name});
  if (own.threshold !== null) svg.append(line(own.threshold, "threshold"));
  const moved = line(own.threshold ?? 0, "other");
  const shade = draw("rect", {x: 50, y: 16, width, height: bottom - 16, class: "shade"});
  svg.append(shade, moved);
  $("histogram").append(svg);
  const slider = $("slider");
  if (!own.steps.length) { slider.closest("div").hidden = true; return; }
  slider.max = own.steps.length - 1;
  const tell = () => {
    const step = own.steps[slider.value];
    const at = 50 + step.threshold * width;
    for (const name of ["x1", "x2"]) moved.setAttribute(name, at);
    shade.setAttribute("x", at);
    shade.setAttribute("width", 50 + width - at);
    const same = Number(slider.value) === own.own;
    const count = `Threshold ${number(step.threshold)}${same ? " (this report’s)" : ""}: ${number(step.flagged)} of ${number(own.scored)} cells flagged, ${percent(step.flagged / own.scored)}.`;
    let promise;
    if (!own.promise) promise = "No promise: " + (own.why_not || "there are no random labels of this screen to test it on") + ".";
    else if (step.promise === null) promise = "No promise: more than half of the good cells could be lost, or the labels do not say.";
    else {
      const share = Math.ceil(step.promise * 1000 - 1e-9) / 1000; // never less than what holds
      promise = `Promise: at most ${percent(share)} of good cells are lost, with ${Math.round(100 * own.confidence)}% confidence.` +
        (same ? "" : ` To get it, set qc.good_cells_lost: ${share} and run again.`);
    }
    const labels = [step.recall === null ? "" : `${percent(step.recall)} of the abnormal`, step.exceeding === null ? "" : `${percent(step.exceeding)} of the normal`].filter(Boolean);
    $("slider-said").replaceChildren(make("strong", {text: count}), " " + promise + (labels.length ? ` Of the labels, ${labels.join(" and ")} would be flagged.` : ""));
    slider.setAttribute("aria-valuetext", count);
  };
  slider.addEventListener("input", tell);
  const start = own.own ?? 0;
  slider.value = start;
  $("slider-back").addEventListener("click", () => { slider.value = start; tell(); });
  tell();
}

// The map of features.
function setUpFeatures() {
  const points = data.features && data.features.points;
  if (!points) return;
  const size = 460;
  const svg = $("points");
  const ends = (values) => { const low = Math.min(...values), high = Math.max(...values); return [low, high > low ? high - low : 1]; };
  const [left, wide] = ends(points.x);
  const [low, high] = ends(points.y);
  const nodes = points.x.map((x, at) => {
    const px = 14 + (x - left) / wide * (size - 28), py = size - 14 - (points.y[at] - low) / high * (size - 28);
    const node = points.flagged[at] ? draw("rect", {x: px - 3.6, y: py - 3.6, width: 7.2, height: 7.2, transform: `rotate(45 ${px} ${py})`, class: "flagged"})
      : draw("circle", {cx: px, cy: py, r: 3.2, class: points.flagged[at] === null ? "unscored" : "passed"});
    node.dataset.at = at;
    node.px = px;
    node.py = py;
    return node;
  });
  const order = nodes.map((_, at) => at).sort((a, b) => Number(points.flagged[a]) - Number(points.flagged[b]));
  order.forEach((at) => svg.append(nodes[at]));
  const ring = draw("circle", {r: 9, class: "ring", visibility: "hidden"});
  svg.append(ring);
  const option = (select, names) => names.forEach((name) => select.append(make("option", {value: name, text: name})));
  const distinct = (values) => [...new Set(values.filter((value) => value !== null))].sort((a, b) => a.localeCompare(b, "en", {numeric: true}));
  option($("by-plate"), distinct(points.plate));
  option($("by-compound"), distinct(points.compound));
  let visible = order;
  let current = -1;
  const show = (place) => {
    current = place;
    const at = visible[place];
    if (at === undefined) return;
    ring.setAttribute("cx", nodes[at].px);
    ring.setAttribute("cy", nodes[at].py);
    ring.setAttribute("visibility", "visible");
    const crop = cropAt.get(points.crop[at]);
    const words = [`${points.plate[at]}, ${points.well[at]}`, points.compound[at] || "no compound",
      points.score[at] === null ? "not scored" : `score ${points.score[at].toFixed(3)}`,
      points.flagged[at] === null ? "" : points.flagged[at] ? "◆ flagged" + (points.artefact[at] ? ": " + points.artefact[at] : "") : "○ passed"].filter(Boolean);
    const parts = [];
    if (crop !== undefined) parts.push(tile(crop, 1.4 * TILE_ZOOM));
    $("point").replaceChildren(...parts, make("span", {text: words.join("; ")}), make("small", {text: points.crop[at]}));
  };
  const filter = () => {
    const byPlate = $("by-plate").value, byCompound = $("by-compound").value, byFlag = $("by-flag").value;
    visible = order.filter((at) => (byPlate === "" || points.plate[at] === byPlate) && (byCompound === "" || points.compound[at] === byCompound) &&
      (byFlag === "" || String(points.flagged[at]) === byFlag));
    const inside = new Set(visible);
    nodes.forEach((node, at) => node.classList.toggle("hidden", !inside.has(at)));
    ring.setAttribute("visibility", "hidden");
    current = -1;
    $("points-said").textContent = `${plural(visible.length, "crop")} of ${number(nodes.length)} shown`;
    $("point").textContent = visible.length ? "Point at a crop, or use the arrow keys on the map." : "No crop matches.";
  };
  for (const name of ["by-plate", "by-compound", "by-flag"]) $(name).addEventListener("change", filter);
  svg.addEventListener("mousemove", (event) => {
    const box = svg.getBoundingClientRect();
    const x = (event.clientX - box.left) / box.width * size, y = (event.clientY - box.top) / box.height * size;
    let best = -1, nearest = 15 ** 2;
    visible.forEach((at, place) => {
      const apart = (nodes[at].px - x) ** 2 + (nodes[at].py - y) ** 2;
      if (apart < nearest) { nearest = apart; best = place; }
    });
    if (best >= 0 && best !== current) show(best);
  });
  svg.addEventListener("keydown", (event) => {
    const step = {ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1}[event.key];
    if (!step || !visible.length) return;
    event.preventDefault();
    show((current + step + visible.length) % visible.length);
  });
  svg.addEventListener("focus", () => { if (current < 0 && visible.length) show(0); });
  filter();
}

for (const link of document.querySelectorAll("a[data-well]")) {
  link.addEventListener("click", (event) => {
    event.preventDefault();
    const at = Number(link.dataset.well);
    if ($("plate")) { plate = wells.plate[at]; $("plate").value = plate; }
    chosenWell = at;
    drawMap();
    openWell(at, link.dataset.site ? Number(link.dataset.site) : undefined);
    $("well-name").focus();
  });
}

setUpMap();
setUpScores();
setUpFeatures();
const asked = /^#well=(.+)$/.exec(location.hash);
if (asked) {
  let name = asked[1];
  try { name = decodeURIComponent(name); } catch { /* a link that nobody wrote */ }
  const at = wells.well.indexOf(name);
  if (at >= 0) openWell(at);
}
