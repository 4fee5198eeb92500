// State of the controls: each has a name, a text that stands for its value in the address, and the drawings that
// depend on it. The address `#section/name=value&name=value` lists the controls that are not at their initial values.

const controls = new Map();
const address = { section: "", waiting: null, known: "" };

// get() gives the text of the value; set(text) restores it, and throws if it is not allowed; draw() shows it.
function register(name, section, { get, set, draw }) {
  controls.set(name, { section, get, set, draw, initial: get() });
}

function changed(name) {
  address.section = controls.get(name).section || address.section;
  clearTimeout(address.waiting);
  address.waiting = setTimeout(writeAddress, 250); // browsers limit how often the address may change
}

function addressNow() {
  const parts = [...controls].filter(([, one]) => one.get() !== one.initial).map(([name, one]) => `${name}=${encodeURIComponent(one.get())}`);
  return `#${address.section}${parts.length ? "/" : ""}${parts.join("&")}`;
}

function writeAddress() {
  clearTimeout(address.waiting);
  address.waiting = null;
  const text = addressNow();
  // An address that is not known yet was set by a link a moment ago, and is about to be read.
  if (text === "#" || text === location.hash || location.hash !== address.known) return;
  try {
    history.replaceState(null, "", text);
    address.known = location.hash;
  } catch {
    // A page within another one may not change its address; the controls work without it.
  }
}

// Sets every control: those that are named to the given texts, the others to their initial values.
function restore(values) {
  const drawings = new Set();
  for (const [name, one] of controls) {
    const before = one.get();
    try {
      one.set(values.get(name) ?? one.initial);
    } catch {
      one.set(one.initial); // a value that is not allowed
    }
    if (one.get() !== before) drawings.add(one.draw);
  }
  drawings.forEach((draw) => draw());
}

function readAddress(event) {
  address.known = location.hash;
  const [section, text] = location.hash.slice(1).split("/");
  const node = document.getElementById(section);
  if (text !== undefined) restore(new URLSearchParams(text));
  if (!node) return;
  if (node.tagName === "SECTION") address.section = section;
  for (let fold = node.closest("details"); fold; fold = fold.parentElement.closest("details")) fold.open = true;
  const behavior = event ? "auto" : "instant";
  if (guide.step && guideSteps()[guide.step - 1].section === section) scrollToStep(behavior);
  else node.scrollIntoView({ behavior });
  if (text === undefined) writeAddress(); // a link within the page keeps the controls
}

function allowed(value, rule) {
  if (!rule) throw new RangeError(`not allowed: ${value}`);
  return value;
}

// A slider, or several for the same value, bound to owner[field]. `values` lists the values of a slider of positions.
function slider(ids, name, owner, field, draw, values) {
  const nodes = [ids].flat().map(byId);
  const position = () => (values ? values.indexOf(owner[field]) : owner[field]);
  const show = () => {
    nodes.forEach((node) => {
      node.value = position();
    });
    draw();
  };
  if (values) nodes.forEach((node) => fill(node, { min: 0, max: values.length - 1, step: 1 }, []));
  const [low, high] = [Number(nodes[0].min), Number(nodes[0].max)];
  nodes.forEach((node) => {
    node.value = position();
    node.addEventListener("input", () => {
      owner[field] = values ? values[Number(node.value)] : Number(node.value);
      show();
      changed(name);
    });
  });
  register(name, nodes[0].closest("section").id, {
    get: () => String(Number(owner[field].toFixed(4))),
    set: (text) => {
      const value = text === "last" ? values?.at(-1) : Number(text);
      owner[field] = values ? allowed(value, values.includes(value)) : allowed(value, text !== "" && value >= low && value <= high);
    },
    draw: show,
  });
}

// A group of radio buttons bound to owner[field]; values are pairs (value, text).
function choices(id, group, name, values, owner, field, draw) {
  const inputs = values.map(([value, text]) => {
    const input = html("input", { type: "radio", name: group, value });
    input.addEventListener("change", () => {
      owner[field] = value;
      show();
      changed(name);
    });
    byId(id).append(html("label", { class: "choice" }, input, html("span", {}, text)));
    return input;
  });
  const show = () => {
    inputs.forEach((input, i) => {
      input.checked = values[i][0] === owner[field];
    });
    draw();
  };
  inputs.forEach((input, i) => {
    input.checked = values[i][0] === owner[field];
  });
  register(name, byId(id).closest("section").id, {
    get: () => String(owner[field]),
    set: (text) => {
      const found = values.find(([value]) => String(value) === text);
      owner[field] = allowed(found, found)[0];
    },
    draw: show,
  });
}

// A button that counts: each press draws other data, whose number owner[field] is.
function counter(id, name, owner, field, draw) {
  byId(id).addEventListener("click", () => {
    owner[field] += 1;
    draw();
    changed(name);
  });
  register(name, byId(id).closest("section").id, {
    get: () => String(owner[field]),
    set: (text) => {
      owner[field] = allowed(Number(text), Number.isInteger(Number(text)) && Number(text) >= 0 && text !== "");
    },
    draw,
  });
}

// A button that is on or off; texts are those of the button in both states.
function toggle(id, name, owner, field, texts, draw) {
  const node = byId(id);
  const show = () => {
    node.setAttribute("aria-pressed", owner[field]);
    node.textContent = texts[Number(owner[field])];
    draw();
  };
  node.addEventListener("click", () => {
    owner[field] = !owner[field];
    show();
    changed(name);
  });
  node.setAttribute("aria-pressed", owner[field]);
  node.textContent = texts[Number(owner[field])];
  register(name, node.closest("section").id, {
    get: () => (owner[field] ? "1" : "0"),
    set: (text) => {
      owner[field] = allowed(text, text === "0" || text === "1") === "1";
    },
    draw: show,
  });
}

async function copyLink() {
  writeAddress();
  try {
    await navigator.clipboard.writeText(location.href);
    write("bar-live", "The link is copied.");
  } catch {
    write("bar-live", "This browser does not allow copying here; the address bar has the link.");
  }
}

function startState() {
  byId("reset").addEventListener("click", () => {
    restore(new Map());
    leaveGuide();
    writeAddress();
    write("bar-live", "Every control is at its initial value.");
  });
  byId("copy").addEventListener("click", copyLink);
  addEventListener("hashchange", readAddress);
  readAddress();
}
