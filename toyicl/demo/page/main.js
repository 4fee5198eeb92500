// Starts the sections. window.toyicl exposes the formulas and the data, for the tests and the browser's console.

const look = { theme: "system" };

function startTheme() {
  const root = document.documentElement;
  const button = byId("theme");
  const dark = () => root.dataset.theme === "dark" || (!root.dataset.theme && matchMedia("(prefers-color-scheme: dark)").matches);
  const show = () => {
    if (look.theme === "system") delete root.dataset.theme;
    else root.dataset.theme = look.theme;
    write("theme", dark() ? "Light" : "Dark");
  };
  button.addEventListener("click", () => {
    look.theme = dark() ? "light" : "dark";
    show();
    changed("theme");
  });
  register("theme", "", {
    get: () => look.theme,
    set: (text) => {
      look.theme = allowed(text, ["system", "light", "dark"].includes(text));
    },
    draw: show,
  });
  show();
}

// ?present hides the prose, enlarges the type, and gives every section a screen of its own.
function startPresent() {
  const now = new URLSearchParams(location.search).has("present");
  if (now) document.documentElement.dataset.present = "";
  const button = byId("present");
  button.setAttribute("aria-pressed", now);
  button.addEventListener("click", () => {
    writeAddress();
    location.href = `${location.pathname}${now ? "" : "?present"}${location.hash}`;
  });
}

const reset = () => restore(new Map());
const toyicl = { ...maths, data, modelOf, controls, addressNow, reset, threeWays, state: { step, task, measure, learn, deeper, breaks, limits, larger, heads, guide } };
window.toyicl = toyicl;
document.querySelectorAll("[data-task]").forEach((node) => {
  node.textContent = data.task[node.dataset.task];
});
startPresent();
startTheme();
startTask();
startStep();
startValley();
startMeasure();
startLearn();
startBreaks();
startLimits();
startDeeper();
startLarger();
startHeads();
startClaims();
startGuide();
startState();
