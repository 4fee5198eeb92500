// Guided mode: twelve steps. Each sets the controls, and outlines what it is about, above the bar with its text.

const guide = { step: 0 };

const guideSteps = () => data.story.steps;

function showGuide() {
  const all = guideSteps();
  const now = all[guide.step - 1];
  byId("guide").hidden = !now;
  document.documentElement.classList.toggle("guided", Boolean(now));
  byId("guide-start").setAttribute("aria-pressed", Boolean(now));
  document.querySelectorAll(".outlined").forEach((node) => node.classList.remove("outlined"));
  document.documentElement.style.setProperty("--floor", "0px");
  if (!now) return;
  write("guide-count", `${guide.step} of ${all.length}`);
  write("guide-text", now.text);
  byId("guide-back").setAttribute("aria-disabled", guide.step === 1); // a disabled button would lose the focus
  byId("guide-next").setAttribute("aria-disabled", guide.step === all.length);
  byId("guide-try").textContent = now.action;
  [...byId("guide-dots").children].forEach((dot, i) => {
    if (i + 1 === guide.step) dot.setAttribute("aria-current", "step");
    else dot.removeAttribute("aria-current");
  });
  document.querySelector(now.outline).classList.add("outlined");
  document.documentElement.style.setProperty("--floor", `${byId("guide").offsetHeight}px`);
}

// Scrolls to the section of the step, and on until the end of what is outlined is above the bar; but not so far
// that its start is hidden by controls that stay in view.
function scrollToStep(behavior) {
  const { section, outline } = guideSteps()[guide.step - 1];
  const margin = 8; // of the outline
  const part = document.querySelector(outline);
  const controls = byId(section).querySelector(":scope > .controls");
  const covered = getComputedStyle(controls ?? part).position === "sticky" ? controls.offsetHeight : 0;
  const { top, bottom } = part.getBoundingClientRect();
  const wanted = Math.min(bottom + margin - (innerHeight - byId("guide").offsetHeight), top - margin - covered);
  const least = byId(section).getBoundingClientRect().top;
  scrollBy({ top: controls?.contains(part) ? least : Math.max(least, wanted), behavior });
}

// Goes to a step, with every other control at its initial value.
function toStep(number) {
  const all = guideSteps();
  const wanted = Math.max(1, Math.min(all.length, number));
  const { section, set } = all[wanted - 1];
  restore(new Map(Object.entries(set).concat([["guide", String(wanted)]])));
  address.section = section;
  writeAddress();
  scrollToStep("auto");
}

function leaveGuide() {
  guide.step = 0;
  showGuide();
  writeAddress();
}

// Moves the keyboard to the control of the step; Escape returns to the guide.
function tryIt() {
  const node = document.querySelector(guideSteps()[guide.step - 1].control);
  node.focus({ preventScroll: true });
}

function guideKeys(event) {
  if (!guide.step || event.altKey || event.ctrlKey || event.metaKey) return;
  if (event.key === "Escape") {
    if (byId("guide").contains(document.activeElement)) leaveGuide();
    else byId("guide-next").focus({ preventScroll: true });
    return;
  }
  const own = event.target.closest?.("input, .handle, .scroll");
  if (own) return; // these use the arrow keys themselves
  if (event.key === "ArrowRight" || event.key === "PageDown") toStep(guide.step + 1);
  else if (event.key === "ArrowLeft" || event.key === "PageUp") toStep(guide.step - 1);
  else return;
  event.preventDefault();
}

function startGuide() {
  register("guide", "task", {
    get: () => String(guide.step),
    set: (text) => {
      guide.step = allowed(Number(text), Number.isInteger(Number(text)) && Number(text) >= 0 && Number(text) <= guideSteps().length);
    },
    draw: showGuide,
  });
  byId("guide-dots").append(
    ...guideSteps().map((_, i) => {
      const dot = html("button", { type: "button", "aria-label": `Step ${i + 1}` });
      dot.addEventListener("click", () => toStep(i + 1));
      return dot;
    }),
  );
  byId("guide-start").addEventListener("click", () => {
    if (guide.step) {
      leaveGuide();
      return;
    }
    toStep(1);
    byId("guide-next").focus({ preventScroll: true });
  });
  byId("guide-back").addEventListener("click", () => toStep(guide.step - 1));
  byId("guide-next").addEventListener("click", () => toStep(guide.step + 1));
  byId("guide-try").addEventListener("click", tryIt);
  byId("guide-end").addEventListener("click", () => {
    leaveGuide();
    byId("guide-start").focus({ preventScroll: true });
  });
  addEventListener("keydown", guideKeys);
  showGuide();
}
