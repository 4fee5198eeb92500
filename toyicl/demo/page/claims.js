// Verdicts: five that a class can read, each with three lights, and every verdict that a sentence of the page rests on.

const SIGNS = {
  reproduced: "\u2713",
  proved: "\u2713",
  "not reproduced": "\u2717",
  refuted: "\u2717",
  inconclusive: "?",
  holds: "\u2713",
  fails: "\u2717",
  "not run": "\u2013",
};
const NEGATIVE = ["not reproduced", "refuted", "fails"];
const OPEN = ["inconclusive", "not run"];
const AUTHORS = { critic: "Critic: ", "later paper": "Later paper: ", toyicl: "Finding of toyicl: ", paper: "" };
const LIGHTS = { yes: "\u25cf", partly: "\u25d0", no: "\u25cb" };

const marked = (verdict) => `${SIGNS[verdict]} ${verdict}`;

function number(value) {
  return value === null || value === undefined ? "" : minus(Number(value.toPrecision(4)).toString());
}

function ours(record) {
  if (record.measured === null) return record.verdict === "not run" ? "not run" : "no seed to evaluate";
  const [low, high] = (record.interval || record.spread).map(number);
  if (record.interval) return `${number(record.measured)} [${low}, ${high}]`;
  return number(record.measured) + (low === high ? "" : ` (${low} to ${high})`);
}

function claimRow(record) {
  const note = record.note ? html("p", { class: "note" }, record.note) : "";
  return html(
    "tr",
    { "data-verdict-row": record.id },
    html(
      "td",
      {},
      html("span", { class: `verdict ${NEGATIVE.includes(record.verdict) ? "negative" : ""}` }, marked(record.verdict)),
      html("p", { class: "note" }, `[${Object.keys(data.verdicts).indexOf(record.id) + 1}] ${record.id}`),
    ),
    html("td", {}, `${AUTHORS[record.author]}${record.statement}.`, note),
    html("td", { class: "number" }, ours(record)),
    html("td", { class: "number" }, record.criterion),
    html("td", {}, html("code", {}, record.command)),
  );
}

function verdictTable(label, records) {
  const head = ["verdict", "claim", "measured (95% interval, or range over seeds)", "compared with", "command"];
  return html(
    "div",
    { class: "scroll", tabindex: 0, role: "region", "aria-label": label },
    html(
      "table",
      {},
      html("thead", {}, html("tr", {}, ...head.map((text) => html("th", { scope: "col" }, text)))),
      html("tbody", {}, ...records.map(claimRow)),
    ),
  );
}

// Whether the verdicts on which a card rests support its sentence: for each, `supports` states whether a positive one does.
function support(card) {
  const votes = card.rests.map(({ id, supports }) => {
    const record = data.verdicts[id];
    if (!record || OPEN.includes(record.verdict)) return 0;
    return NEGATIVE.includes(record.verdict) === supports ? -1 : 1;
  });
  if (votes.every((vote) => vote > 0)) return "yes";
  return votes.every((vote) => vote < 0) ? "no" : "partly";
}

// How strong: proved where every verdict is exact, else measured; weak where one of them is open.
function strength(card) {
  const records = card.rests.map(({ id }) => data.verdicts[id]).filter(Boolean);
  if (records.length < card.rests.length || records.some(({ verdict }) => OPEN.includes(verdict))) return ["no", "partly open"];
  if (records.every(({ analytical, verdict }) => analytical || verdict === "proved")) return ["yes", "proved"];
  const seeds = Math.min(...records.filter(({ seeds }) => seeds).map(({ seeds }) => seeds[0]));
  return ["partly", Number.isFinite(seeds) ? `measured, ${seeds} seeds` : "measured"];
}

function light(state, name, text) {
  return html("li", { class: `light ${state}` }, html("span", { "aria-hidden": "true" }, LIGHTS[state]), html("b", {}, `${name}: `), text);
}

function card(one) {
  const found = support(one);
  const [level, text] = strength(one);
  const words = { yes: "yes", partly: "partly", no: "no" };
  return html(
    "article",
    { class: "verdict-card", "data-card": one.id },
    html("h3", {}, one.title),
    html(
      "ul",
      { class: "lights" },
      light(one.claimed, one.source, words[one.claimed]),
      light(found, "we find", words[found]),
      light(level, "how strong", text),
    ),
    html("p", {}, one.sentence),
    html(
      "details",
      {},
      html("summary", {}, `The ${one.rests.length} results`),
      verdictTable(`Results: ${one.title}`, one.rests.map(({ id }) => data.verdicts[id]).filter(Boolean)),
    ),
  );
}

// A number behind each sentence that rests on verdicts, which links to them; and the measured numbers in such sentences.
function tieSentences() {
  document.querySelectorAll("b[data-value]").forEach((node) => {
    const record = data.verdicts[node.dataset.value];
    node.textContent = record && record.measured !== null ? shown(record.measured, Number(node.dataset.digits ?? 2)) : "\u2013";
  });
  document.querySelectorAll("[data-verdict]").forEach((node) => {
    const found = node.dataset.verdict.split(" ").filter((id) => data.verdicts[id]);
    const name = (id) => `[${Object.keys(data.verdicts).indexOf(id) + 1}]`;
    node.append(...found.map((id) => html("a", { class: "tie", href: `#verdict-${id}`, "aria-label": `${name(id)}, result ${id}: ${data.verdicts[id].verdict}` }, name(id))));
  });
}

function startClaims() {
  const records = Object.values(data.verdicts);
  byId("claims-cards").append(...data.story.cards.map(card));
  const table = verdictTable("Every verdict that a sentence of this page rests on", records);
  table.querySelectorAll("[data-verdict-row]").forEach((row) => {
    row.id = `verdict-${row.dataset.verdictRow}`;
  });
  byId("claims-list").append(table);
  write("claims-count", records.length ? `The ${records.length} results that this page states` : "This file contains no verdicts; toyicl verify --out writes them");
  tieSentences();
}
