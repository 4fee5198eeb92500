// Claims: the verdict on every figure, and on every claim and finding by experiment, with its command.

// Signs and order of the verdicts; the first ones are those of claims, the others those of findings.
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
const AUTHORS = { critic: "Critic: ", "later paper": "Later paper: ", toyicl: "Finding of toyicl: ", paper: "" };

const marked = (verdict) => `${SIGNS[verdict]} ${verdict}`;

function number(value) {
  return value === null || value === undefined ? "" : Number(value.toPrecision(4)).toString().replace("-", "\u2212");
}

function ours(record) {
  if (record.measured === null) return record.verdict === "not run" ? "not run" : "no seed to evaluate";
  const [low, high] = (record.interval || record.spread).map(number);
  if (record.interval) return `${number(record.measured)} [${low}, ${high}]`;
  return number(record.measured) + (low === high ? "" : ` (${low} to ${high})`);
}

function claimRow(record) {
  const basis = [record.analytical ? "analytical" : "", record.kind === "cosine" ? "cosine" : ""].filter(Boolean);
  const refuted = record.author === "critic" && NEGATIVE.includes(record.verdict) ? " Found: not so." : "";
  const reason = [record.reason, record.place ? `at ${record.place}` : ""].filter(Boolean).join(", ");
  const note = record.note ? html("p", { class: "note" }, record.note) : "";
  return html(
    "tr",
    { "data-verdict": record.verdict },
    html(
      "td",
      {},
      html("span", { class: `verdict ${NEGATIVE.includes(record.verdict) ? "negative" : ""}` }, marked(record.verdict)),
      reason ? html("p", { class: "note" }, reason) : "",
    ),
    html("td", {}, `${AUTHORS[record.author]}${record.statement}${basis.length ? ` (${basis.join(", ")})` : ""}.${refuted}`, note),
    html("td", { class: "number" }, ours(record)),
    html("td", { class: "number" }, record.criterion),
  );
}

function scrolled(label, head, rows) {
  return html(
    "div",
    { class: "scroll", tabindex: 0, role: "region", "aria-label": label },
    html(
      "table",
      {},
      html("thead", {}, html("tr", {}, ...head.map((text) => html("th", { scope: "col" }, text)))),
      html("tbody", {}, ...rows),
    ),
  );
}

function figureRow(row) {
  const negative = /^(not reproduced|refuted|objection refuted)/.test(row.verdict);
  return html(
    "tr",
    {},
    html("td", {}, row.figure),
    html("td", {}, row.claims),
    html("td", {}, html("b", { class: negative ? "negative" : "" }, row.verdict)),
    html("td", { class: "number" }, row.ours),
    html("td", { class: "number" }, row.paper),
  );
}

// One table of figures for each work.
function figureTables(rows) {
  const works = [...new Set(rows.map((row) => row.work))];
  return works.flatMap((work) => [
    html("h3", {}, work),
    scrolled(
      `Figures of ${work}`,
      ["figure", "claim", "verdict", "measured value (95% interval)", "claimed"],
      rows.filter((row) => row.work === work).map(figureRow),
    ),
  ]);
}

function claimGroup(chapter) {
  const counts = Object.keys(SIGNS)
    .map((verdict) => [chapter.records.filter((record) => record.verdict === verdict).length, verdict])
    .filter(([count]) => count)
    .map(([count, verdict]) => `${count} ${verdict}`);
  return html(
    "details",
    { id: `claims-${chapter.experiment}`, class: "chapter" },
    html("summary", {}, html("b", {}, chapter.experiment), ` ${chapter.claim} `, html("span", { class: "counts" }, counts.join(", "))),
    html("p", {}, "Command for the figure and the numbers: ", html("code", {}, chapter.command), chapter.cut ? ` ${chapter.cut}` : ""),
    scrolled(
      `Verdicts of ${chapter.experiment}`,
      ["verdict", "claim", "measured value (95% interval, or range over seeds)", "compared with"],
      chapter.records.map(claimRow),
    ),
  );
}

function filterClaims(verdict) {
  const rows = [...document.querySelectorAll("#claims-list tr[data-verdict]")];
  rows.forEach((row) => {
    row.hidden = verdict !== "all" && row.dataset.verdict !== verdict;
  });
  document.querySelectorAll("#claims-list details").forEach((group) => {
    const left = group.querySelectorAll("tr[data-verdict]:not([hidden])").length;
    group.hidden = left === 0;
    if (verdict !== "all") group.open = left > 0;
  });
  const seen = rows.filter((row) => !row.hidden).length;
  write("claims-live", `${seen} of ${rows.length} verdicts are shown.`);
}

// Opens an experiment's verdicts when a link to them is followed.
function openClaims() {
  const found = document.getElementById(location.hash.slice(1));
  if (!found || found.tagName !== "DETAILS") return;
  if (found.hidden) document.querySelector('input[name="claims-show"][value="all"]').click();
  found.open = true;
}

function startClaims() {
  const chapters = data.verdicts.experiments;
  byId("claims-figures").append(...figureTables(data.verdicts.figures));
  byId("claims-list").append(...chapters.map(claimGroup));
  const records = chapters.flatMap((chapter) => chapter.records);
  const found = Object.keys(SIGNS).filter((verdict) => records.some((record) => record.verdict === verdict));
  const claims = records.filter((record) => record.author !== "toyicl");
  const counted = (some) =>
    found
      .map((verdict) => [some.filter((record) => record.verdict === verdict).length, verdict])
      .filter(([count]) => count)
      .map(([count, verdict]) => `${count} ${verdict}`)
      .join(", ");
  write(
    "claims-count",
    records.length
      ? `Claims of others: ${counted(claims)}. Findings of toyicl: ${counted(records.filter((record) => record.author === "toyicl"))}.`
      : "This file contains no verdicts. They are written by toyicl verify --out.",
  );
  choices("claims-filter", "claims-show", [["all", "all"], ...found.map((verdict) => [verdict, marked(verdict)])], "all", filterClaims);
  document.querySelectorAll("[data-claims]").forEach((node) => {
    const names = node.dataset.claims.split(" ").filter((name) => chapters.some((chapter) => chapter.experiment === name));
    if (names.length) {
      node.append("Claims: ", ...names.flatMap((name, i) => [i ? ", " : "", html("a", { href: `#claims-${name}` }, name)]));
      node.addEventListener("click", () => setTimeout(openClaims)); // also when the address does not change
    }
  });
  addEventListener("hashchange", openClaims);
  openClaims();
}
