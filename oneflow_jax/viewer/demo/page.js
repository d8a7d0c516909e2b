// Start of the demo: requests, their progress, and the cards of their documents.

data.model = () => data.descriptions[byId("model").value];

const problem = {
  /** Shows the message of an error in an element of role alert, by default that of the form. */
  show(error, place = byId("problem")) {
    place.textContent = reword(error.message);
    place.scrollIntoView({ block: "nearest" });
  },
  clear() {
    for (const place of document.querySelectorAll(".problem")) place.textContent = "";
  },
};

/** Shows a line above the playback controls for some seconds. */
const notice = {
  timer: null,
  show(text) {
    clearTimeout(this.timer);
    byId("notice").textContent = text;
    this.timer = setTimeout(() => byId("notice").replaceChildren(), 8000);
  },
};

const progress = {
  /** Shows what happens; `done` of `total` steps, or unknown without them. */
  show(text, done, total) {
    byId("progress").hidden = false;
    if (byId("status").textContent !== text) byId("status").textContent = text;
    if (total) Object.assign(byId("bar"), { max: total, value: done });
    else byId("bar").removeAttribute("value");
  },
  hide() {
    byId("progress").hidden = true;
    byId("status").textContent = "";
  },
};

const results = {
  controller: null,
  last: "", // the finished request that the form had last

  /**
   * Sends a request and shows its documents; returns whether all went well.
   *
   * `describe(index)` returns what LiveStory needs, and `mount(stories)` adds their cards. Until the
   * first state arrives, the page keeps the earlier documents, so a request without states restores
   * the lines above them.
   */
  async run(send, describe, mount) {
    this.controller?.abort();
    const controller = (this.controller = new AbortController());
    const outcome = [...byId("outcome").children];
    let mounted = false;
    const mountNew = (stories) => {
      mounted = true;
      mount(stories);
    };
    problem.clear();
    advice.clear();
    byId("outcome").replaceChildren();
    this.showBusy(true);
    byId("documents").classList.add("stale");
    progress.show("Sending the request ...");
    try {
      const done = await this.follow(readEvents(await send(controller.signal)), describe, mountNew);
      this.report(done);
      return true;
    } catch (error) {
      if (error.name !== "AbortError") problem.show(error);
      return false;
    } finally {
      if (this.controller === controller) {
        this.showBusy(false);
        byId("documents").classList.remove("stale");
        if (!mounted) byId("outcome").replaceChildren(...outcome);
        progress.hide();
      }
    }
  },

  /** Shows the button Stop in place of Generate, or Generate again, and keeps the focus. */
  showBusy(busy) {
    const [before, after] = busy ? ["generate", "stop"] : ["stop", "generate"];
    const hadFocus = document.activeElement === byId(before);
    byId(before).hidden = true;
    byId(after).hidden = false;
    if (hadFocus) byId(after).focus({ preventScroll: true });
  },

  /** Draws the states of a request as they arrive, and returns the data of its last event. */
  async follow(events, describe, mount) {
    let stories = null;
    let compiled = false;
    for await (const { name, data: event } of events) {
      if (name === "error") throw new Error(event.message);
      if (name === "queued") {
        progress.show(event.position ? `Waiting for ${event.position} other requests ...` : "Waiting for the server ...");
        byId("outcome").replaceChildren(...event.warnings.map(line));
      }
      compiled ||= name === "compiling";
      if (name === "compiling") progress.show("Compiling a program for documents of this length; it is needed only once ...");
      if (name === "state") {
        const isFirst = !stories;
        stories ??= event.documents.map((_, at) => new LiveStory(describe(at)));
        await Promise.all(event.documents.map((shown, at) => stories[at].add(event.t, shown, event.step === event.steps)));
        if (isFirst) mount(stories);
        progress.show("Generating text and images ...", event.step, event.steps);
        this.draw(stories);
      }
      if (name === "done") {
        event.documents.forEach((result, at) => (stories[at].result = result.parts.map((part) => (part.image ? { image: pngUri(part.image) } : part))));
        this.finish(stories);
        return { ...event, compiled };
      }
    }
    throw new Error("The server closed the connection before the document was finished. Try again.");
  },

  draw(stories) {
    byId("documents").classList.remove("stale");
    for (const card of show.cards) if (stories.includes(card.story)) card.grow();
    byId("step").max = show.last();
    show.go(show.last(), true);
  },

  /** Adds the buttons of finished documents, and plays their steps. */
  finish(stories) {
    for (const card of show.cards) if (stories.includes(card.story)) card.finish(data.model().can_edit);
    show.reserve();
    if (quiet.matches) return;
    show.go(0);
    show.play();
  },

  report({ documents, nfe, seconds, compiled, warnings, changes }) {
    const count = documents.length === 1 ? "One document" : `${documents.length} documents`;
    const lines = [...warnings, `${count} in ${seconds.toFixed(1)} s${compiled ? " with the compilation of programs" : ""}, NFE ${nfe}.`];
    if (documents.some((made) => made.truncated)) lines.push("A document was full, so some insertions were left out.");
    if (changes) lines.push(changes.length ? `Changes: ${changes.map(describeChange).join(", ")}.` : "The model changed nothing.");
    byId("outcome").replaceChildren(...lines.map(line));
  },

  /** Replaces all cards by those of `stories`. */
  mountAll(stories) {
    show.pause();
    show.alone(null);
    show.cards = stories.map((story, index) => new ResultCard(story, index, results.revise));
    byId("documents").replaceChildren(...show.cards.map((card) => card.root));
    byId("documents").classList.toggle("single", stories.length === 1);
  },

  /** Generates the documents of the form; the same request again gets a new seed. */
  async generate() {
    let body;
    try {
      checkPrompt(form.editor.parts());
      if (JSON.stringify(form.request()) === this.last) form.drawSeed();
      body = form.request();
    } catch (error) {
      return problem.show(error);
    }
    history.replaceState(null, "", form.link(body));
    reveal(byId("results"));
    const { prompt, model, seed, steps } = body;
    const parts = form.editor.parts();
    const describe = (at) => ({ title: `Document ${at + 1}`, prompt, settings: texts({ prompt, model, seed, steps }) });
    const mount = (stories) => {
      showOrigin(`Model ${model}, seed ${seed}, ${steps} steps:`, parts);
      this.mountAll(stories);
    };
    if (await this.run((signal) => post("v1/generate", body, signal), describe, mount)) this.last = JSON.stringify(body);
  },

  /** Lets the model revise the parts of a card; `change` is the fraction that it may change. */
  async revise(card, parts, change) {
    const body = { model: data.model().name, document: parts, start: 1 - change, ...form.options(), stream: true };
    const { model, seed, steps, start } = body;
    const describe = () => ({ title: `Document ${card.index + 1}, revised`, prompt: card.story.prompt, settings: texts({ model, seed, steps, start }) });
    const mount = ([story]) => {
      show.pause();
      const revised = new ResultCard(story, card.index, results.revise);
      card.root.replaceWith(revised.root);
      show.cards[card.index] = revised;
    };
    await results.run((signal) => post("v1/edit", body, signal), describe, mount);
    show.cards[card.index].root.querySelector(".edit")?.focus();
  },

  /** Shows the documents that the server made when it started. */
  async showExample() {
    const { prompt, seed, model } = data.example;
    const describe = (at) => ({ title: `Document ${at + 1}`, prompt, settings: texts(data.example) });
    showOrigin(`Example, made by the model ${model} when the server started, with seed ${seed}:`, splitPrompt(prompt));
    await this.run((signal) => request("demo/example", { signal }), describe, this.mountAll);
  },
};

/** Returns a paragraph with a message of the server in the words of this page. */
function line(message) {
  return Object.assign(element("p"), { textContent: reword(message) });
}

/** Returns an edit without the number of its word, which the page does not show. */
function describeChange(change) {
  return change.replace(/^(after )?\d+: /, "").replace(" -> ", " → ");
}

/** Returns the values of an object as texts. */
function texts(values) {
  return Object.fromEntries(Object.entries(values).map(([name, value]) => [name, String(value)]));
}

/** Shows above the documents where they come from. */
function showOrigin(words, parts) {
  byId("origin").replaceChildren(words, " ", ...renderParts(parts));
}

/** Scrolls to an element that is below the form on narrow screens. */
function reveal(target) {
  if (target.getBoundingClientRect().top > 0.5 * innerHeight) target.scrollIntoView({ behavior: quiet.matches ? "auto" : "smooth" });
}

async function copyLink() {
  const body = form.request();
  const link = form.link(body);
  const note = Object.keys(body.images).length ? " It has gaps in place of your images." : "";
  try {
    await navigator.clipboard.writeText(link);
    notice.show(`The link with prompt, seed and settings was copied.${note}`);
  } catch {
    notice.show(`Copy this link: ${link}${note}`); // The browser forbids access to the clipboard.
  }
}

async function start() {
  form.begin();
  byId("theme").setAttribute("aria-pressed", String(dark()));
  listen();
  byId("composer").addEventListener("submit", (event) => {
    event.preventDefault();
    results.generate();
  });
  byId("composer").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) byId("composer").requestSubmit();
  });
  byId("stop").addEventListener("click", () => results.controller.abort());
  byId("share").addEventListener("click", copyLink);
  addEventListener("hashchange", async () => {
    if (await form.readLink()) results.generate();
  });
  document.body.dataset.ready = "yes";
  await ((await form.readLink()) ? results.generate() : results.showExample());
}
