// Playback and its keyboard shortcuts. This file must come after card.js, whose names it uses.

const quiet = matchMedia("(prefers-reduced-motion: reduce)");
const FULL_RUN = 6000; // milliseconds from t=0 to t=1 at speed 1
const OPENING = 1500; // milliseconds for which the page shows the finished documents before it plays

/** State of the slider; all changes of the documents on the page go through this object. */
const show = {
  cards: data.stories.map((story, index) => new Card(story, index)),
  step: 0,
  belief: false,
  timer: null,
  opening: null,

  last() {
    return Math.max(0, ...this.cards.map((card) => card.story.frames.length - 1));
  },

  go(step, redraw = false) {
    const to = Math.min(this.last(), Math.max(0, step));
    if (to === this.step && !redraw) return;
    const forward = to === this.step + 1;
    this.step = to;
    for (const card of this.cards) card.draw(to, this.belief, forward && !quiet.matches);
    const longest = this.cards.find((card) => card.story.frames.length - 1 === this.last());
    const t = longest ? longest.frame(to)[0].toFixed(2) : "–";
    byId("step").value = to;
    byId("step").setAttribute("aria-valuetext", `step ${to} of ${this.last()}, t ${t}`);
    byId("readout").innerHTML = `step <b>${to}</b><span class="of"> of ${this.last()}</span> &nbsp;·&nbsp; <var>t</var> = <b>${t}</b>`;
  },

  /** Shows the finished documents, then plays once how they were generated, unless the user acts first. */
  open() {
    this.go(this.last(), true);
    if (!quiet.matches) this.opening = setTimeout(() => this.play(), OPENING);
  },

  play() {
    clearTimeout(this.opening);
    if (this.step === this.last()) this.go(0);
    this.playing(true);
    const pace = Math.min(600, Math.max(80, FULL_RUN / Math.max(1, this.last()))) / byId("speed").value;
    document.documentElement.style.setProperty("--pace", `${Math.min(260, pace)}ms`);
    this.timer = setInterval(() => {
      this.go(this.step + 1);
      if (this.step === this.last()) this.pause();
    }, pace);
  },

  pause() {
    clearTimeout(this.opening);
    clearInterval(this.timer);
    this.timer = null;
    this.playing(false);
  },

  playing(now) {
    document.body.classList.toggle("playing", now);
    byId("play").setAttribute("aria-label", now ? "Pause" : "Play");
  },

  toggle() {
    if (this.timer) this.pause();
    else this.play();
  },

  /** Moves to a step chosen by the user, and stops playback. */
  seek(step) {
    this.pause();
    this.go(step);
  },

  believe(belief) {
    this.belief = belief;
    byId("documents").classList.toggle("belief", belief);
    byId("state").setAttribute("aria-pressed", String(!belief));
    byId("belief").setAttribute("aria-pressed", String(belief));
    this.go(this.step, true);
  },

  /** Shows only one document, or all of them again. */
  alone(card) {
    const on = card !== null && !card.root.classList.contains("alone");
    for (const each of this.cards) {
      each.root.classList.toggle("alone", on && each === card);
      each.expand.setAttribute("aria-pressed", String(on && each === card));
    }
    document.body.classList.toggle("solo", on);
    this.reserve();
  },

  /** Reserves the final height of each document, so that nothing below it moves during playback. */
  reserve() {
    for (const card of this.cards) card.body.style.minHeight = "";
    const step = this.step;
    this.go(this.last(), true);
    const heights = this.cards.map((card) => card.body.offsetHeight);
    this.cards.forEach((card, at) => (card.body.style.minHeight = `${heights[at]}px`));
    this.go(step, true);
  },
};

function dark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

function flipTheme() {
  document.documentElement.dataset.theme = dark() ? "light" : "dark";
  byId("theme").setAttribute("aria-pressed", String(dark()));
}

const KEYS = {
  " ": () => show.toggle(),
  ArrowLeft: () => show.seek(show.step - 1),
  ArrowRight: () => show.seek(show.step + 1),
  Home: () => show.seek(0),
  End: () => show.seek(show.last()),
  b: () => show.believe(!show.belief),
  d: flipTheme,
  Escape: () => show.alone(null),
};

function listen() {
  byId("play").addEventListener("click", () => show.toggle());
  byId("step").addEventListener("input", (event) => show.seek(Number(event.target.value)));
  byId("state").addEventListener("click", () => show.believe(false));
  byId("belief").addEventListener("click", () => show.believe(true));
  byId("theme").addEventListener("click", flipTheme);
  byId("speed").addEventListener("change", () => {
    if (!show.timer) return;
    show.pause();
    show.play();
  });
  document.addEventListener("keydown", (event) => {
    const action = KEYS[event.key];
    if (!action || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.closest("select, textarea, input:not([type=range]), [contenteditable]")) return; // They handle all keys.
    if (event.key === " " && event.target.closest("button, summary")) return; // These elements handle the space key.
    event.preventDefault();
    action();
  });
  let waiting = null;
  addEventListener("resize", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => show.reserve(), 120);
  });
}
