// The page: a stream of states from the server (what the rollouts do), and tiles (what a client of the proxy sees).
"use strict";

const TILE = 16, PAINT_MS = 250, TILES_A_TURN = 24;
const canvas = document.getElementById("tiles");
const pen = canvas.getContext("2d");
const columns = Math.floor(canvas.width / TILE), rows = Math.floor(canvas.height / TILE);
const tiles = [];

// A body that is the name of a colour is painted in it, as the rollouts demo does; any other version gets a hue of its own.
function colourOf(tile) {
  if (tile.colour && CSS.supports("color", tile.colour)) return tile.colour;
  let hash = 0;
  for (const letter of tile.version || "?") hash = (hash * 31 + letter.charCodeAt(0)) >>> 0;
  return `hsl(${hash % 360} 70% 50%)`;
}

function paint() {
  pen.clearRect(0, 0, canvas.width, canvas.height);
  tiles.forEach((tile, i) => {
    const x = (i % columns) * TILE, y = Math.floor(i / columns) * TILE;
    pen.fillStyle = colourOf(tile);
    pen.fillRect(x + 1, y + 1, TILE - 2, TILE - 2);
    if (tile.failed) {
      // Light below dark: it shows on every colour.
      for (const [style, width] of [["#fff", 4], ["#000", 2]]) {
        pen.strokeStyle = style; pen.lineWidth = width;
        pen.beginPath();
        pen.moveTo(x + 4, y + 4); pen.lineTo(x + TILE - 4, y + TILE - 4);
        pen.moveTo(x + TILE - 4, y + 4); pen.lineTo(x + 4, y + TILE - 4);
        pen.stroke();
      }
    }
  });
  const counts = new Map();
  for (const tile of tiles) {
    const key = tile.label;
    const seen = counts.get(key) || { colour: colourOf(tile), all: 0, failed: 0 };
    seen.all += 1; seen.failed += tile.failed ? 1 : 0;
    counts.set(key, seen);
  }
  const legend = document.getElementById("legend");
  legend.replaceChildren(...[...counts].sort().map(([label, seen]) => {
    const item = document.createElement("li"), box = document.createElement("i");
    box.style.background = seen.colour;
    const share = (100 * seen.all / tiles.length).toFixed(0);
    item.append(box, `${label}: ${share} %` + (seen.failed ? `, ${seen.failed} failed` : ""));
    return item;
  }));
}

async function ask() {
  const [key] = cards.keys();
  if (document.hidden || !key) return;
  const [namespace, name] = key.split("/");
  try {
    const answer = await fetch(`api/tiles?namespace=${namespace}&name=${name}&count=${TILES_A_TURN}`, { method: "POST", headers: { "x-sidestep": "page" } });
    if (!answer.ok) return;
    tiles.push(...await answer.json());
    tiles.splice(0, Math.max(0, tiles.length - columns * rows));
    paint();
  } catch { /* the stream says when the server is gone */ }
}
setInterval(ask, PAINT_MS);

const percent = (share) => share == null ? "–" : `${(100 * share).toFixed(share > 0 && share < 0.01 ? 2 : 1)} %`;
const number = (value, unit = "") => value == null ? "–" : `${value < 10 ? value.toFixed(1) : Math.round(value)}${unit}`;
const cards = new Map();

function card(rollout) {
  const key = `${rollout.namespace}/${rollout.name}`;
  if (!cards.has(key)) {
    const fresh = document.getElementById("rollout").content.firstElementChild.cloneNode(true);
    fresh.querySelector("h2").textContent = key;
    const actions = fresh.querySelector(".actions");
    for (const [action, label] of [["promote", "Promote"], ["promote-full", "Promote full"], ["pause", "Pause"], ["abort", "Abort"], ["retry", "Retry"], ["restart", "Restart"]]) {
      const button = document.createElement("button");
      button.textContent = label;
      button.dataset.action = action;
      button.onclick = () => act(fresh, key, action);
      actions.append(button);
    }
    document.getElementById("rollouts").append(fresh);
    cards.set(key, fresh);
  }
  return cards.get(key);
}

async function act(element, key, action) {
  const line = element.querySelector(".answer");
  const answer = await fetch(`api/rollouts/${key}/${action}`, { method: "POST", headers: { "x-sidestep": "page" } });
  line.textContent = await answer.text();
}

function show(rollout) {
  const element = card(rollout);
  const phase = element.querySelector(".phase");
  phase.dataset.phase = rollout.phase;
  phase.textContent = rollout.message ? `${rollout.phase}: ${rollout.message}` : rollout.phase;
  element.querySelector(".canary").style.width = `${rollout.actualWeight}%`;
  element.querySelector(".bar").setAttribute("aria-label", `canary weight ${rollout.actualWeight} percent`);
  element.querySelector(".weights").textContent = `canary: set ${rollout.setWeight} %, actual ${rollout.actualWeight} %` + (rollout.waiting ? ` · waiting: ${rollout.waiting}` : "");
  element.querySelector(".steps").replaceChildren(...rollout.steps.map((step, i) => {
    const item = document.createElement("li");
    item.textContent = step;
    if (rollout.stepIndex != null && rollout.phase !== "Degraded") item.className = i < rollout.stepIndex ? "done" : i === rollout.stepIndex ? "now" : "";
    return item;
  }));
  element.querySelector(".versions tbody").replaceChildren(...rollout.versions.map((version) => {
    const row = document.createElement("tr");
    for (const text of [version.name, version.revision, number(version.rps), percent(version.errorRate), number(version.p99, " ms"), version.ready ?? "–"]) {
      const cell = document.createElement("td");
      cell.textContent = text;
      row.append(cell);
    }
    return row;
  }));
  element.querySelector(".runs").replaceChildren(...rollout.runs.map((run) => {
    const item = document.createElement("li");
    item.textContent = `${run.name}: ${run.phase}` + (run.message ? ` – ${run.message}` : "");
    return item;
  }));
}

const stream = new EventSource("api/events");
const line = document.getElementById("connection");
stream.onopen = () => { line.textContent = "live"; };
stream.onerror = () => { line.textContent = "connection lost, trying again…"; };
stream.onmessage = (event) => {
  const { rollouts } = JSON.parse(event.data);
  const present = new Set(rollouts.map((rollout) => `${rollout.namespace}/${rollout.name}`));
  for (const [key, element] of cards) if (!present.has(key)) { element.remove(); cards.delete(key); }
  rollouts.forEach(show);
};
