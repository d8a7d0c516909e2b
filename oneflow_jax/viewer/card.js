// Draws the trajectories in #data. The format of the data is in page.py, _serialize_view.

/** Arranges `children` in `parent` in this order, and moves as few elements as possible. */
function arrange(parent, children, first = null) {
  let next = first;
  for (const child of children) {
    if (child !== next) parent.insertBefore(child, next);
    else next = next.nextSibling;
  }
  while (next) {
    const after = next.nextSibling;
    next.remove();
    next = after;
  }
}

/** One document: the elements of its parts and tokens by key, which can be redrawn from any frame. */
class Card {
  constructor(story, index) {
    this.story = story;
    this.parts = new Map();
    this.words = new Map();
    this.settled = new Map(); // final text of a token by key, which sets the width of its mask block
    for (const [, parts] of story.frames)
      for (const part of parts)
        if (!part[0]) for (const unit of part[4]) this.settled.set(story.words[unit][0], story.words[unit][1]);
    this.root = element("article", "card");
    this.root.setAttribute("aria-labelledby", `title-${index}`);
    const header = element("header", "", this.root);
    const title = element("h2", "", header);
    title.id = `title-${index}`;
    title.textContent = story.title;
    element("p", "prompt", header).textContent = story.prompt;
    this.expand = element("button", "expand", header);
    this.expand.type = "button";
    this.expand.setAttribute("aria-label", `Show ${story.title} alone`);
    this.expand.title = "Show this document alone, and back (Esc)";
    this.expand.setAttribute("aria-pressed", "false");
    this.expand.innerHTML = '<svg viewBox="0 0 16 16" aria-hidden="true"><path d="M6 2H2v4M10 2h4v4M6 14H2v-4M10 14h4v-4"/></svg>';
    this.expand.addEventListener("click", () => show.alone(this));
    this.body = element("div", `document${this.pairing()}`, this.root);
    this.spoken = element("p", "spoken", this.root);
  }

  /** Returns class names that place each image beside its text, unless the result has adjacent images. */
  pairing() {
    const parts = this.frame(Infinity)[1];
    if (parts.some((part, at) => part[0] && at && parts[at - 1][0])) return "";
    return parts.length && parts[0][0] ? " paired picture-first" : " paired";
  }

  frame(step) {
    return this.story.frames[Math.min(step, this.story.frames.length - 1)];
  }

  /** Returns the part keys and the tokens by key of the frame before `step`; null if the document does not change. */
  before(step) {
    if (step === 0 || step >= this.story.frames.length) return null;
    const parts = this.story.frames[step - 1][1];
    const words = new Map();
    for (const part of parts.filter((part) => !part[0]))
      part[4].forEach((unit, at) => words.set(this.story.words[unit][0], { unit, plain: part[5][at] === 100 }));
    return { parts: new Set(parts.map((part) => part[1])), words };
  }

  draw(step, belief, forward) {
    const parts = this.frame(step)[1];
    const before = this.before(step);
    const reading = [];
    const seen = new Set();
    const drawn = parts.map((part) => {
      const made = this.part(part);
      made.classList.toggle("given", !!part[2]);
      made.style.setProperty("--clock", part[3]);
      if (!part[0]) this.text(made, part, belief, before, forward, reading, seen);
      made.classList.toggle("entering", forward && before !== null && !before.parts.has(part[1]));
      return made;
    });
    arrange(this.body, drawn, this.body.firstChild);
    for (const key of this.words.keys()) if (!seen.has(key)) this.words.delete(key);
    const kept = new Set(parts.map((part) => part[1]));
    for (const key of this.parts.keys()) if (!kept.has(key)) this.parts.delete(key);
    const words = reading.join(" ").replace(/\s+/g, " ").trim();
    this.spoken.textContent = words;
    for (const part of parts) if (part[0]) this.picture(this.parts.get(part[1]), part, belief, words);
  }

  /** Returns the element of a part, and creates it if its key is new. */
  part(part) {
    if (!this.parts.has(part[1])) {
      const made = element(part[0] ? "figure" : "p", part[0] ? "picture" : "run");
      if (part[0]) {
        const canvas = element("canvas", "", made);
        canvas.setAttribute("role", "img");
        element("i", "", element("span", "clock", made));
        element("figcaption", "", made);
      } else made.setAttribute("aria-hidden", "true"); // Screen readers read .spoken instead.
      this.parts.set(part[1], made);
    }
    return this.parts.get(part[1]);
  }

  text(run, [, , given, , units, percents], belief, before, forward, reading, seen) {
    let mark = run.querySelector(":scope > .mark");
    if (given && !mark) {
      mark = element("span", "mark", run);
      mark.textContent = "given";
    } else if (!given && mark) mark.remove();
    const spoken = [];
    const words = units.map((unit, at) => {
      const [key, text, fixed] = this.story.words[unit];
      const shown = percents[at] / 100;
      const masked = shown === 0 && !belief;
      const made = this.word(key);
      const was = before?.words.get(key);
      const inserted = before !== null && !was;
      // A partly masked token changes its text often. Only a token that was plain counts as replaced.
      const replaced = !!was && was.plain && was.unit !== unit;
      made.className = "word";
      made.classList.toggle("masked", masked);
      made.classList.toggle("sure", shown === 1);
      made.classList.toggle("given", !!fixed && !given);
      made.classList.toggle("fresh", inserted || replaced);
      made.classList.toggle("entering", inserted && forward);
      made.style.setProperty("--shown", shown);
      this.spell(made, masked ? this.settled.get(key) : text);
      spoken.push(masked ? " ▁" : text);
      seen.add(key);
      return made;
    });
    arrange(run, words, given && mark ? mark.nextSibling : run.firstChild);
    reading.push(spoken.join(""));
  }

  /** Returns the element of a token; its leading space is outside of its block. */
  word(key) {
    if (!this.words.has(key)) {
      const made = element("span", "word");
      made.append("");
      element("b", "", element("span", "ink", made));
      this.words.set(key, made);
    }
    return this.words.get(key);
  }

  spell(word, text) {
    const body = text.trimStart();
    const space = text.slice(0, text.length - body.length);
    if (word.firstChild.data !== space) word.firstChild.data = space;
    const ink = word.lastChild.firstChild;
    if (ink.textContent !== body) ink.textContent = body;
  }

  /** Returns the target width of square images. All images of one area are enlarged by the same integer factor. */
  wanted() {
    if (this.root.classList.contains("alone")) return Math.min(256, innerHeight * 0.27);
    return this.body.classList.contains("paired") ? 132 : 104; // three images fit into a card's width
  }

  picture(figure, [, , given, clock, stateSheet, stateRow, guessSheet, guessRow], belief, words) {
    const [number, row] = belief ? [guessSheet, guessRow] : [stateSheet, stateRow];
    const { width, height, image } = data.sheets[number];
    const canvas = figure.firstChild;
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    const factor = Math.max(1, Math.round(this.wanted() / Math.sqrt(width * height)));
    figure.style.width = `${width * factor}px`;
    canvas.getContext("2d").drawImage(image, 0, row * height, width, height, 0, 0, width, height);
    canvas.setAttribute("aria-label", `${given ? "Given image" : `Image at t ${clock.toFixed(2)}`} in: ${words}`);
    const caption = figure.lastChild;
    caption.textContent = given ? "given" : `t ${clock.toFixed(2)}`;
    caption.classList.toggle("mark", !!given);
  }
}
