// Claims: every verdict of the project's report, by experiment, with the command that reproduces it.

const MARKS = { holds: "\u2713 holds", fails: "\u2717 fails", "not run": "\u2013 not run" };

function number(value) {
  return value === null || value === undefined ? "" : Number(value.toPrecision(4)).toString().replace("-", "\u2212");
}

function ours(record) {
  if (record.measured === null) return record.verdict === "not run" ? "not run" : "no seed to evaluate";
  const [low, high] = record.spread;
  return number(record.measured) + (high > low ? ` (${number(low)} to ${number(high)})` : "");
}

function claimRow(record) {
  const kind = record.kind === "measured" ? "" : ` (${record.kind})`;
  const note = record.note ? html("p", { class: "note" }, record.note) : "";
  const [low, high] = record.band.map(number);
  const band = low === "" ? `at most ${high}` : high === "" ? `at least ${low}` : `${low} to ${high}`;
  return html(
    "tr",
    { "data-verdict": record.verdict },
    html("td", {}, html("span", { class: `verdict ${record.verdict.replace(" ", "-")}` }, MARKS[record.verdict])),
    html("td", {}, `${/^[a-z]/.test(record.statement) ? "\u2026 " : ""}${record.statement}${kind}.`, note),
    html("td", { class: "number" }, ours(record)),
    html("td", { class: "number" }, band),
  );
}

function claimGroup(chapter) {
  const counts = ["holds", "fails", "not run"]
    .map((verdict) => [chapter.records.filter((record) => record.verdict === verdict).length, verdict])
    .filter(([count]) => count)
    .map(([count, verdict]) => `${count} ${verdict}`);
  const head = ["verdict", "claim", "measured value (range over seeds)", "accepted range"];
  return html(
    "details",
    { id: `claims-${chapter.experiment}`, class: "chapter" },
    html("summary", {}, html("b", {}, chapter.experiment), ` ${chapter.claim} `, html("span", { class: "counts" }, counts.join(", "))),
    html("p", {}, "Command for the figure and the numbers: ", html("code", {}, chapter.command), chapter.cut ? ` ${chapter.cut}` : ""),
    html(
      "div",
      { class: "scroll", tabindex: 0, role: "region", "aria-label": `Verdicts of ${chapter.experiment}` },
      html(
        "table",
        {},
        html("thead", {}, html("tr", {}, ...head.map((text) => html("th", { scope: "col" }, text)))),
        html("tbody", {}, ...chapter.records.map(claimRow)),
      ),
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
  const chapters = data.verdicts;
  byId("claims-list").append(...chapters.map(claimGroup));
  const records = chapters.flatMap((chapter) => chapter.records);
  const count = (verdict) => records.filter((record) => record.verdict === verdict).length;
  write(
    "claims-count",
    records.length
      ? `Claims that hold: ${count("holds")}; that fail: ${count("fails")}; not run: ${count("not run")}.`
      : "This file contains no verdicts. They are written by toyicl verify --out.",
  );
  const kinds = [["all", "all"], ["holds", "\u2713 holds"], ["fails", "\u2717 fails"], ["not run", "\u2013 not run"]];
  choices("claims-filter", "claims-show", kinds, "all", filterClaims);
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
