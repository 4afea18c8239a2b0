"use strict";
/* The page of a lab server. It shows what the API answers; everything is text, nothing is ever read as HTML. */

const REFRESH_MS = 2000, SUMMARY_MS = 3000;
const main = document.getElementById("main");
let left = new AbortController(); // ends what the view before still asks for
let shown = 0; // number of the view on screen; what belongs to an older one is dropped
let token = sessionStorage.getItem("glauber-token") || "";

/* Elements and texts */

function el(kind, attributes = {}, ...children) {
  const made = document.createElement(kind);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(name, String(value));
  }
  made.append(...children.filter((child) => child !== null && child !== undefined).map((c) => (c instanceof Node ? c : String(c))));
  return made;
}

function table(heads, rows, kind = "") {
  const names = heads.map(([name, style = ""]) => el("th", { class: style, scope: "col" }, name));
  const body = rows.map((cells) => el("tr", {}, ...cells.map((cell, k) => el("td", { class: heads[k][1] || "" }, cell))));
  return el("div", { class: "scroll" }, el("table", { class: kind }, el("thead", {}, el("tr", {}, ...names)), el("tbody", {}, ...body)));
}

function facts(rows) {
  const lines = rows.map(([name, value]) => el("tr", {}, el("th", { scope: "row" }, name), el("td", {}, value)));
  return el("table", { class: "facts" }, el("tbody", {}, ...lines));
}

const number = (value) => Number(value).toLocaleString("en");
const figure = (value, unit = "") => (value === null || value === undefined ? "not known" : `${Number(Number(value).toPrecision(4))}${unit}`);
const when = (seconds) => (seconds ? new Date(seconds * 1000).toLocaleString("en-GB") : "–");
const percent = (fraction) => `${Math.floor(100 * fraction)} %`;

function duration(seconds) {
  if (seconds === null || seconds === undefined) return "not known";
  if (seconds < 1e-3) return seconds ? `${Number((seconds * 1e6).toPrecision(3))} µs` : "0 s";
  if (seconds < 1) return `${Number((seconds * 1e3).toPrecision(3))} ms`;
  if (seconds < 120) return `${Number(seconds.toPrecision(3))} s`;
  return seconds < 7200 ? `${Math.round(seconds / 60)} min` : `${Number((seconds / 3600).toPrecision(3))} h`;
}

function jobLink(id) {
  return el("a", { class: "id", href: `#/jobs/${encodeURIComponent(id)}` }, id);
}

function status(name) {
  return el("span", { class: `pill ${name}` }, name);
}

function bar(fraction) {
  return el("progress", { max: 1, value: fraction, "aria-label": percent(fraction) });
}

/* Asking the server */

class Refused extends Error {}

async function ask(path, options = {}) {
  const headers = { Authorization: `Bearer ${token}`, ...(options.headers || {}) };
  const answer = await fetch(path, { ...options, headers });
  if (answer.ok) return answer;
  let message = `${answer.status} ${answer.statusText}`;
  try { message = (await answer.json()).message || message; } catch (error) { /* no JSON: the status says it */ }
  const problem = new Refused(message);
  problem.status = answer.status;
  throw problem;
}

const json = async (path, options) => (await ask(path, options)).json();

function say(problem) {
  const box = document.getElementById("trouble");
  box.hidden = !problem;
  if (problem) box.textContent = problem instanceof Refused ? problem.message : `The server does not answer (${problem.message}). Trying again.`;
}

async function health() {
  const pill = document.getElementById("health");
  try {
    const found = await (await fetch("/health")).json();
    pill.textContent = found.status;
    pill.className = `pill ${found.status === "ok" ? "good" : "bad"}`;
  } catch (error) {
    pill.textContent = "no answer";
    pill.className = "pill bad";
  }
}

/* Views: each is drawn again every few seconds while it is on screen and visible */

function view(draw, every = REFRESH_MS) {
  const mine = ++shown;
  left.abort();
  left = new AbortController();
  const step = async () => {
    if (mine !== shown) return;
    if (!document.hidden) {
      health();
      try {
        const made = await draw(() => mine === shown);
        if (mine !== shown) return;
        // what is still in place stays in place: a button that is replaced under a finger loses its click
        if (made && !(made.length === 1 && main.firstChild === made[0])) main.replaceChildren(...made);
        say(null);
      } catch (problem) {
        if (mine !== shown) return;
        if (problem.status === 401) return askForToken(problem.message);
        say(problem);
        if (problem.status === 404 || problem.status === 403) return;
      }
    }
    setTimeout(step, every);
  };
  main.replaceChildren(el("p", { class: "quiet" }, "loading"));
  step();
}

function askForToken(message) {
  shown += 1;
  const field = el("input", { id: "token", type: "password", autocomplete: "off", required: true, placeholder: "glb_..." });
  const form = el("form", { class: "token", onsubmit: (event) => {
    event.preventDefault();
    token = field.value.trim();
    sessionStorage.setItem("glauber-token", token);
    route();
  } }, el("label", { for: "token" }, "Token", field), el("button", {}, "Show the lab"));
  const hint = el("p", { class: "quiet" }, "Made on the server by ", el("code", {}, "glauber token create --owner NAME --scope read --days 30"),
    ". It stays in this tab until you close it.");
  main.replaceChildren(form, hint);
  say(token && message ? new Refused(message) : null);
  document.getElementById("leave").hidden = true;
  field.focus();
}

function deviceCard(device) {
  const running = device.running ? el("p", {}, "running ", jobLink(device.running)) : el("p", { class: "quiet" }, "idle");
  return el("div", { class: "card" },
    el("h3", {}, el("a", { href: `#/devices/${device.name}` }, device.name), " ",
      el("span", { class: `pill ${device.health === "ok" ? "good" : "bad"}` }, device.health === "ok" ? "ok" : "failing")),
    el("p", { class: "quiet" }, device.title),
    el("p", {}, `${device.kind}, ${device.n_sites ? `${number(device.n_sites)} p-bits` : "any number of p-bits"}`),
    running,
    el("p", {}, `${device.queued} waiting`),
    device.health === "ok" ? null : el("p", { class: "bad" }, device.health),
    device.reserved_for ? el("p", { class: "queued" }, `reserved for ${device.reserved_for}`) : null);
}

function jobsTable(jobs) {
  if (!jobs.length) return el("p", { class: "quiet" }, "no jobs yet");
  const heads = [["job"], ["status"], ["device", "wide"], ["owner"], ["submitted", "wide"], ["done", "number"], ["size", "wide"], ["ran", "number wide"], ["energy", "number wide"]];
  return table(heads, jobs.map((job) => [
    jobLink(job.id), status(job.status), job.device, job.owner, when(job.created), percent(job.sweeps_done / Math.max(1, job.sweeps_total)),
    `${number(job.n_sites)} × ${number(job.n_chains)} × ${number(job.n_samples)}`, duration(job.seconds), job.joules === null ? "–" : figure(job.joules, " J"),
  ]));
}

function overview() {
  view(async () => {
    const [devices, jobs, usage] = await Promise.all([json("/devices"), json("/jobs?limit=30"), json("/usage")]);
    const used = usage.usage.slice(-14).reverse();
    const heads = [["day"], ["owner"], ["device"], ["jobs", "number wide"], ["time", "number"], ["energy"]];
    return [
      el("h2", {}, "Devices"), el("div", { class: "cards" }, ...devices.devices.map(deviceCard)),
      el("h2", {}, "Jobs"), jobsTable(jobs.jobs),
      el("h2", {}, "Usage"),
      used.length ? table(heads, used.map((u) => [u.day, u.owner, u.device, number(u.jobs), duration(u.seconds),
        u.joules === null ? "not known" : `${figure(u.joules)} ± ${figure(u.joules_uncertainty)} J${u.without_joules ? `, without ${u.without_joules} jobs` : ""}`]))
        : el("p", { class: "quiet" }, "nothing in the last 30 days"),
    ];
  });
}

function devicePage(name) {
  view(async () => {
    const device = await json(`/devices/${name}`);
    const reservations = (await json(`/devices/${name}/reservations`)).reservations;
    const heads = [["job"], ["status"], ["owner"], ["priority", "number wide"], ["done", "number"], ["left", "number"]];
    const limits = Object.entries(device.limits).filter(([, value]) => value !== null).map(([key, value]) => `${key.replaceAll("_", " ")} ${number(value)}`);
    return [
      el("h2", {}, `${name}: ${device.title}`), deviceCard(device),
      el("h2", {}, "Queue"),
      device.queue.length ? table(heads, device.queue.map((job) => [jobLink(job.id), status(job.status), job.owner, job.priority, percent(job.fraction), duration(job.seconds_left)]))
        : el("p", { class: "quiet" }, "nobody waits"),
      el("h2", {}, "Reservations"),
      reservations.length ? table([["owner"], ["from"], ["until"], ["made by", "wide"]], reservations.map((r) => [r.owner, new Date(r.starts).toLocaleString("en-GB"), new Date(r.ends).toLocaleString("en-GB"), r.made_by]))
        : el("p", { class: "quiet" }, "none"),
      el("h2", {}, "Description"),
      facts([...device.about, ["address on the server", device.address], ["limits here", limits.join(", ") || "none"],
        ["meter", device.meter || "none"], ["calibration", device.calibration || "none"], ["spec hash", device.spec_hash],
        ["open it by", el("code", {}, `glauber.open_device("${location.origin}/devices/${name}")`)]]),
    ];
  });
}

/* A job: its state comes as it changes, its figures every few seconds */

async function follow(id, alive, heard) {
  let last = -1;
  for (let pause = 500; alive(); pause = Math.min(8000, 2 * pause)) {
    try {
      const answer = await ask(`/jobs/${id}/events`, { headers: { "Last-Event-ID": String(last) }, signal: left.signal });
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      for (let rest = ""; alive(); ) {
        const { value, done } = await reader.read();
        if (done) break;
        rest += value;
        const blocks = rest.split("\n\n");
        rest = blocks.pop();
        for (const block of blocks) {
          const data = block.split("\n").find((line) => line.startsWith("data:"));
          const number = block.split("\n").find((line) => line.startsWith("id:"));
          if (number) last = Number(number.slice(3));
          if (!data) continue;
          const event = JSON.parse(data.slice(5));
          heard(event);
          pause = 500;
          if (["done", "failed", "cancelled"].includes(event.status)) return;
        }
      }
      reader.cancel();
    } catch (problem) {
      if ([401, 403, 404].includes(problem.status)) return; // not ours to follow, or gone: the view says so
    }
    await new Promise((go) => setTimeout(go, pause));
  }
}

function figures(summary) {
  const parts = [];
  if (summary.traces.length) {
    parts.push(el("div", { class: "charts" },
      el("div", { class: "card" }, el("h3", {}, `Energy along ${summary.traces.length} of ${number(summary.n_chains)} chains`), traceChart(summary)),
      el("div", { class: "card" }, el("h3", {}, "Energies of all samples"), histogramChart(summary))));
  }
  parts.push(el("h2", {}, "Figures"), facts([
    ["samples", `${number(summary.n_chains)} chains × ${number(summary.n_samples)}`],
    ["mean energy", figure(summary.mean_energy)], ["lowest energy", figure(summary.lowest_energy)],
    ["diagnostics", el("pre", {}, summary.diagnostics_text)], ["joules", el("pre", {}, summary.energy_text)],
    ["time", Object.entries(summary.timing).map(([phase, s]) => `${phase} ${duration(s)}`).join(", ")],
  ]));
  return parts;
}

async function download(id) {
  const content = await (await ask(`/jobs/${id}/result`)).blob();
  const link = el("a", { href: URL.createObjectURL(content), download: `${id}.npz` });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

function jobPage(id) {
  const live = { event: null, summary: null, summaryText: "", over: false, asked: 0, samples: 0 };
  const act = (what) => async (event) => { event.target.disabled = true; try { await what(); } catch (problem) { say(problem); } };
  const cancel = el("button", { type: "button", onclick: act(() => ask(`/jobs/${id}/cancel`, { method: "POST" })) }, "Cancel");
  const save = el("button", { type: "button", onclick: act(() => download(id)) }, "Result as npz");
  const rest = el("div", {});
  const root = el("div", {}, el("h2", {}, "Job ", el("span", { class: "id" }, id)), el("p", { id: "state" }), el("div", { id: "bar" }), el("p", {}, cancel, " ", save), rest);
  let started = false;
  view(async (alive) => {
    const text = await (await ask(`/jobs/${id}`)).text();
    const job = JSON.parse(text);
    job.seed = (text.match(/"seed":\s*(\d+)/) || [])[1]; // 64 bits are more than a number here holds
    if (!started) {
      started = true;
      follow(id, alive, (event) => { live.event = event; paint(job, live); });
    }
    const ended = ["done", "failed", "cancelled"].includes(job.status);
    const grown = job.samples_done > live.samples && Date.now() - live.asked > SUMMARY_MS;
    if (!live.over && (ended || grown)) {
      const before = Date.now();
      live.samples = job.samples_done;
      try { live.summary = await json(`/jobs/${id}/summary`); live.summaryText = ""; } catch (problem) { live.summaryText = problem.message; }
      live.over = ended;
      live.asked = Date.now() + 3 * (Date.now() - before); // a large result is asked for less often
    }
    if (!alive()) return null;
    cancel.disabled = ended;
    save.disabled = !(ended && live.summary);
    setTimeout(() => paint(job, live));
    rest.replaceChildren(
      ...(live.summary ? figures(live.summary) : [el("p", { class: "quiet" }, live.summaryText || "nothing drawn yet")]),
      el("h2", {}, "Facts"), facts([
        ["device", el("a", { href: `#/devices/${job.device}` }, job.device)], ["owner", job.owner], ["priority", job.priority],
        ["size", `${number(job.n_sites)} p-bits × ${number(job.n_chains)} chains × ${number(job.n_samples)} samples`], ["seed", job.seed ?? "–"],
        ["submitted", when(job.created)], ["started", when(job.started)], ["ended", when(job.ended)], ["ran", duration(job.seconds)],
        ["error", job.error ? `${job.error}: ${job.message}` : "–"],
      ]));
    return [root];
  }, 1000);
}

function paint(job, live) {
  const state = document.getElementById("state"), place = document.getElementById("bar");
  if (!state || !place) return;
  const newer = live.event && (live.event.sweeps_done >= job.sweeps_done || live.event.status === job.status);
  const now = newer && !["done", "failed", "cancelled"].includes(job.status) ? live.event : job;
  const fraction = Math.max(now.sweeps_done, job.sweeps_done) / Math.max(1, job.sweeps_total);
  state.replaceChildren(status(now.status), ` ${percent(fraction)}, ${number(Math.max(now.sweeps_done, job.sweeps_done))} of ${number(job.sweeps_total)} sweeps`,
    now.message ? `; ${now.message}` : "");
  place.replaceChildren(bar(fraction));
}

/* Which view */

function route() {
  say(null);
  const leave = document.getElementById("leave");
  leave.hidden = !token;
  if (!token) return askForToken("");
  const [kind, name] = location.hash.replace(/^#\//, "").split("/");
  if (kind === "devices" && name) return devicePage(encodeURIComponent(decodeURIComponent(name)));
  if (kind === "jobs" && name) return jobPage(encodeURIComponent(decodeURIComponent(name)));
  return overview();
}

document.getElementById("leave").addEventListener("click", () => {
  token = "";
  sessionStorage.removeItem("glauber-token");
  route();
});
window.addEventListener("hashchange", route);
health();
route();
