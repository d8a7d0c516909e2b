// The form at the left: document, names, settings and the link that stores them.

const SETTINGS = ["steps", "guidance", "seed"];
const PAUSE_MS = 400; // without a change of the document, before its words are checked

const form = {
  editor: null,

  begin() {
    this.editor = new DocumentEditor(byId("editor"), { fail: problem.show, change: () => this.noteChange() });
    for (const button of document.querySelectorAll("[data-gap]")) if (button.closest(".toolbar")) button.addEventListener("click", () => this.editor.insertGap(button.dataset.gap));
    byId("add-file").addEventListener("click", () => byId("files").click());
    byId("files").addEventListener("change", (event) => {
      this.editor.insertFiles([...event.target.files]);
      event.target.value = ""; // so that the same file can be chosen again
    });
    for (const name of data.models) element("option", "", byId("model")).textContent = name;
    byId("model").addEventListener("change", () => this.chooseModel());
    for (const name of SETTINGS) byId(name).addEventListener("input", () => this.showValues());
    byId("new-seed").addEventListener("click", () => this.drawSeed());
    byId("find-name").addEventListener("input", () => names.filter());
    byId("find-name").addEventListener("keydown", (event) => {
      if (event.key === "Enter") names.insertFirst(event);
    });
    byId("name-list").addEventListener("keydown", (event) => names.move(event));
    const narrow = matchMedia("(max-width: 60rem)");
    narrow.addEventListener("change", () => this.foldOptions(narrow));
    this.foldOptions(narrow);
    // A file that misses the editor would replace the page.
    for (const type of ["dragover", "drop"]) document.addEventListener(type, (event) => event.preventDefault());
    this.showModel();
    this.editor.set(splitPrompt(data.model().prompts[0]));
  },

  /** Folds names and settings where the results are below the form, so that they are in sight. */
  foldOptions(narrow) {
    byId("options").open = !narrow.matches;
  },

  noteChange() {
    problem.clear();
    advice.update();
  },

  /** Shows the model that the user chose; the server loads it if nobody has used it yet. */
  async chooseModel() {
    const name = byId("model").value;
    try {
      if (!data.descriptions[name]) {
        progress.show(`Loading the model ${name} ...`);
        const answer = await request(`demo/model?${new URLSearchParams({ name })}`);
        data.descriptions[name] = await answer.json();
      }
      this.showModel();
    } catch (error) {
      problem.show(error);
      byId("model").value = data.models.find((other) => data.descriptions[other]);
      this.showModel();
    } finally {
      progress.hide();
    }
  },

  /** Shows the names, prompts and defaults of the chosen model. */
  showModel() {
    const model = data.model();
    byId("model-summary").textContent = model.summary;
    byId("credits").replaceChildren(...model.credits.map((credit) => Object.assign(element("p"), { textContent: credit })));
    byId("steps").value = model.steps;
    byId("guidance").value = model.guidance;
    byId("add-document").hidden = !model.any_parts;
    byId("add-shapes").replaceChildren(...model.shapes.map((ratio) => this.shapeButton(ratio)));
    byId("start-list").replaceChildren(...model.prompts.map((prompt) => this.chip(prompt, () => this.editor.set(splitPrompt(prompt)))));
    names.show(model);
    advice.update();
    this.showValues();
  },

  /** Returns a button that inserts a gap for an image of an aspect ratio. */
  shapeButton(ratio) {
    const button = Object.assign(element("button"), { type: "button", textContent: `+ image ${ratio}` });
    button.addEventListener("click", () => this.editor.insertGap(`<image ${ratio}>`));
    return button;
  },

  /** Returns a list item with a button; gaps of a prompt are drawn as boxes. */
  chip(text, action) {
    const item = element("li");
    const button = element("button", "", item);
    button.type = "button";
    button.append(...renderParts(splitPrompt(text)));
    button.addEventListener("click", action);
    return item;
  },

  showValues() {
    byId("steps-value").textContent = byId("steps").value;
    const guidance = Number(byId("guidance").value);
    byId("guidance-value").textContent = guidance === 1 ? "off" : guidance;
    byId("guidance").setAttribute("aria-valuetext", byId("guidance-value").textContent);
  },

  drawSeed() {
    byId("seed").value = Math.floor(Math.random() * 2 ** 31);
  },

  /** Returns the body of a request to /v1/generate. */
  request() {
    return {
      model: data.model().name,
      ...this.editor.prompt(),
      samples: data.samples,
      ...this.options(),
      stream: true,
    };
  },

  options() {
    return { steps: Number(byId("steps").value), image_guidance_scale: Number(byId("guidance").value), seed: Number(byId("seed").value) };
  },

  /** Returns the address of this page with the prompt and the settings of a request. */
  link({ model, prompt, steps, image_guidance_scale: guidance, seed }) {
    const address = new URL(location.href);
    address.hash = new URLSearchParams({ prompt: removeNames(prompt), model, steps, guidance, seed });
    return address.href;
  },

  /** Takes the values of a link; returns whether the address has a prompt. */
  async readLink() {
    const values = new URLSearchParams(location.hash.slice(1));
    if (!values.get("prompt")) return false;
    if (data.models.includes(values.get("model"))) {
      byId("model").value = values.get("model");
      await this.chooseModel();
    }
    for (const name of SETTINGS) if (values.has(name)) byId(name).value = values.get(name);
    this.showValues();
    this.editor.set(splitPrompt(values.get("prompt")));
    return true;
  },
};

/** Returns a prompt with gaps in place of the user's images. */
function removeNames(prompt) {
  return prompt.replace(/<image:\d+>/g, "<image>");
}

/** Says while the user types which words of the document the model probably does not know. */
const advice = {
  timer: null,
  controller: null,

  /** Checks the document after a pause in typing. */
  update() {
    this.stop();
    this.timer = setTimeout(() => this.check(), PAUSE_MS);
  },

  async check() {
    if (!form.editor.parts().some((part) => part.text)) return this.clear();
    const { model, prompt } = form.request();
    this.controller = new AbortController();
    try {
      const answer = await post("demo/warnings", { model, prompt: removeNames(prompt) }, this.controller.signal);
      byId("advice").replaceChildren(...(await answer.json()).warnings.map(line));
    } catch (error) {
      if (error.name !== "AbortError") this.clear(); // The button Generate reports the error.
    }
  },

  stop() {
    clearTimeout(this.timer);
    this.controller?.abort();
  },

  /** Removes the sentences: a request shows them above its documents. */
  clear() {
    this.stop();
    byId("advice").replaceChildren();
  },
};

/** The list of names that the model knows: arrow keys move in it, Enter in the search inserts the first one. */
const names = {
  buttons: [],

  show(model) {
    byId("names-label").textContent = model.names.length ? "The model knows these names" : "The model knows these words";
    const known = model.names.length ? model.names : model.words;
    const items = known.map((name) => form.chip(escapePrompt(name), () => this.insert(name)));
    byId("name-list").replaceChildren(...items);
    this.buttons = items.map((item) => item.firstChild);
    byId("find-name").value = "";
    this.filter();
  },

  visible() {
    return this.buttons.filter((button) => !button.parentElement.hidden);
  },

  filter() {
    const wanted = byId("find-name").value.trim().toLowerCase();
    for (const button of this.buttons) {
      button.parentElement.hidden = !button.textContent.toLowerCase().includes(wanted);
      button.tabIndex = -1;
    }
    const visible = this.visible();
    if (visible.length) visible[0].tabIndex = 0;
    const count = this.buttons.length;
    byId("name-count").textContent = wanted ? `${visible.length} of ${count}` : `${count} in all`;
  },

  insert(name) {
    const isEmpty = !form.editor.parts().length;
    form.editor.insertText(name);
    if (isEmpty) form.editor.insertGap("<image>");
  },

  insertFirst(event) {
    event.preventDefault();
    this.visible()[0]?.click();
  },

  move(event) {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    const visible = this.visible();
    const next = visible[visible.indexOf(document.activeElement) + step];
    if (!step) return;
    event.preventDefault();
    event.stopPropagation(); // Otherwise the player would take a step.
    if (!next) return;
    document.activeElement.tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  },
};
