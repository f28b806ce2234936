"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const find = (id) => document.getElementById(id);
const PAUSE = 150; // milliseconds that a choice stays marked; also stops double clicks

// A generator of numbers in [0, 1) from a string (FNV-1a, then Mulberry32).
function randomFrom(seed) {
  let state = 2166136261;
  for (const unit of seed) state = Math.imul(state ^ unit.codePointAt(0), 16777619);
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
}

function shuffled(list, random) {
  const copy = [...list];
  for (let i = copy.length - 1; i > 0; i--) {
    const j = Math.floor(random() * (i + 1));
    [copy[i], copy[j]] = [copy[j], copy[i]];
  }
  return copy;
}

// Random order and sides. What is shown twice comes first in one half, then in the other.
function arrange(pairs, random) {
  const key = (pair) => [...pair.images].sort().join();
  const often = new Map();
  for (const pair of pairs) often.set(key(pair), (often.get(key(pair)) || 0) + 1);
  const seen = new Set(), first = [], again = [], others = [];
  for (const pair of shuffled(pairs, random)) {
    if (seen.has(key(pair))) again.push(pair);
    else (often.get(key(pair)) > 1 ? first : others).push(pair);
    seen.add(key(pair));
  }
  const half = Math.max(0, Math.floor(pairs.length / 2) - first.length);
  const order = [
    ...shuffled([...first, ...others.slice(0, half)], random),
    ...shuffled([...others.slice(half), ...again], random),
  ];
  return order.map((pair) => {
    const [left, right] = random() < 0.5 ? pair.images : [pair.images[1], pair.images[0]];
    return { id: pair.id, prompt: pair.prompt, left, right };
  });
}

// Without a server the votes are in the storage of the browser, if it allows that.
const local = {
  name: "study " + data.study,
  read() {
    try { return JSON.parse(localStorage.getItem(this.name)); } catch { return null; }
  },
  write(state) {
    try { localStorage.setItem(this.name, JSON.stringify(state)); return true; }
    catch { return false; }
  },
};

function newRater() {
  const bytes = crypto.getRandomValues(new Uint8Array(8));
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

const kept = data.served ? null : local.read();
const rater = data.served ? null : (kept && kept.rater) || newRater();
const seed = data.served ? data.seed : rater;
const votes = new Map(Object.entries((data.served ? data.votes : kept && kept.votes) || {}));
const random = randomFrom(seed);
const part = data.parts[Math.floor(random() * data.parts.length)];
const pairs = arrange(part, random);

let place = 0, busy = true, shownAt = 0, saved = true;

const unvoted = () => pairs.findIndex((pair) => !votes.has(pair.id));
const view = (name) => {
  for (const id of ["start", "vote", "end"]) find(id).hidden = id !== name;
};

async function show(index) {
  busy = true;
  place = index;
  const pair = pairs[index];
  find("message").textContent = "";
  find("images").classList.add("waiting");
  find("prompt").textContent = pair.prompt;
  find("count").textContent = `${index + 1} of ${pairs.length}`;
  find("bar").max = pairs.length;
  find("bar").value = votes.size;
  find("back").disabled = index === 0;
  mark(votes.has(pair.id) ? side(pair, votes.get(pair.id)) : null);
  view("vote");
  const images = [[find("left"), pair.left], [find("right"), pair.right]];
  for (const [element, name] of images) element.src = data.images[name];
  try {
    await Promise.all(images.map(([element]) => element.decode()));
  } catch {
    if (place === index) find("message").textContent = "The images could not be loaded; reload the page.";
    return;
  }
  if (place !== index) return;
  for (const [element] of images) { // small images are enlarged, to 448 pixels at most
    element.style.maxWidth = Math.max(element.naturalWidth, 448) + "px";
  }
  find("images").classList.remove("waiting");
  shownAt = performance.now();
  busy = false;
  if (index + 1 < pairs.length) {
    for (const name of [pairs[index + 1].left, pairs[index + 1].right]) new Image().src = data.images[name];
  }
}

// An earlier vote as the side that it is on now.
function side(pair, vote) {
  if (vote.choice === "tie" || vote.left === pair.left) return vote.choice;
  return vote.choice === "left" ? "right" : "left";
}

function mark(choice) {
  for (const button of document.querySelectorAll("#vote [data-choice]")) {
    const chosen = button.dataset.choice === choice;
    button.classList.toggle("chosen", chosen);
    button.setAttribute("aria-pressed", String(chosen));
  }
}

async function choose(choice) {
  if (busy || find("vote").hidden) return;
  busy = true;
  const pair = pairs[place];
  const vote = { left: pair.left, choice, seconds: (performance.now() - shownAt) / 1000 };
  mark(choice);
  const pause = new Promise((done) => setTimeout(done, PAUSE));
  const problem = await keep(pair, vote);
  await pause;
  if (problem) {
    find("message").textContent = problem;
    mark(votes.has(pair.id) ? side(pair, votes.get(pair.id)) : null);
    busy = false;
    return;
  }
  votes.set(pair.id, vote);
  next();
}

// Store a vote; the reason if that failed.
async function keep(pair, vote) {
  if (!data.served) {
    vote.at = new Date().toISOString();
    saved = local.write({ rater, votes: { ...Object.fromEntries(votes), [pair.id]: vote } });
    return "";
  }
  try {
    const answer = await fetch("votes", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ pair: pair.id, ...vote, change: votes.has(pair.id) }),
    });
    if (answer.ok) return "";
    if (answer.status === 409) { // another window voted: take its votes
      location.reload();
      return "This pair has a vote already.";
    }
    return "Not saved: " + (await answer.text());
  } catch {
    return "Not saved: the server does not answer. Vote again in a moment.";
  }
}

function next() {
  if (place + 1 < pairs.length && votes.has(pairs[place + 1].id)) return void show(place + 1);
  const open = unvoted();
  if (open === -1) finish();
  else show(open);
}

function back() {
  if (!find("end").hidden) show(pairs.length - 1);
  else if (!busy && place > 0) show(place - 1);
}

function finish() {
  find("thanks").textContent = data.served
    ? `All ${pairs.length} votes are saved. You can close this page.`
    : `You have voted on all ${pairs.length} pairs. Save the votes as a file, and send it to the ` +
      "person who gave you this page.";
  view("end");
  (data.served ? find("review") : find("download")).focus();
}

function download() {
  const list = [...votes].map(([pair, vote]) => ({ pair, ...vote }));
  const content = JSON.stringify({ version: 1, study: data.study, rater, votes: list }, null, 1);
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([content], { type: "application/json" }));
  link.download = `votes-${rater}.json`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  saved = true;
}

const KEYS = {
  ArrowLeft: "left", ArrowUp: "left", 1: "left",
  ArrowRight: "right", 2: "right",
  ArrowDown: "tie", 0: "tie", t: "tie", T: "tie",
};

document.addEventListener("keydown", (event) => {
  if (event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
  const voting = !find("vote").hidden;
  if (voting && KEYS[event.key]) choose(KEYS[event.key]);
  else if (event.key === "Backspace" && find("start").hidden) back();
  else return;
  event.preventDefault();
});
for (const button of document.querySelectorAll("[data-choice]")) {
  button.addEventListener("click", () => choose(button.dataset.choice));
}
find("back").addEventListener("click", back);
find("review").addEventListener("click", back);
find("save").addEventListener("click", download);
find("download").addEventListener("click", download);
find("begin").addEventListener("click", () => (unvoted() === -1 ? finish() : show(unvoted())));
addEventListener("beforeunload", (event) => { if (!saved) event.preventDefault(); });

find("intro").textContent =
  `You will see two images at a time, ${pairs.length} pairs in all, and the prompt they were made for. ` +
  "You can stop at any time and go on later.";
find("stored").textContent = data.served
  ? "Stored are your choices and how long they took; no name, no address, nothing else."
  : "Your choices and how long they took stay in this browser until you save them as a file; nothing is sent.";
find("question").textContent = data.question;
find("save").hidden = find("download").hidden = data.served;
if (votes.size) find("begin").textContent = "Continue";
view("start");
find("begin").focus();
