// Starts the sections. window.toyicl exposes the formulas and the data, for the tests and the browser's console.

function startTheme() {
  const root = document.documentElement;
  const button = byId("theme");
  const dark = () => root.dataset.theme === "dark" || (!root.dataset.theme && matchMedia("(prefers-color-scheme: dark)").matches);
  const name = () => write("theme", dark() ? "Light" : "Dark");
  button.addEventListener("click", () => {
    root.dataset.theme = dark() ? "light" : "dark";
    name();
  });
  name();
}

window.toyicl = { ...maths, data, modelOf, state: { step, learn, deeper, breaks }, threeWays };
startTheme();
startStep();
startLearn();
startDeeper();
startBreaks();
startClaims();
