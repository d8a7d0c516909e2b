// Draws data.curves as an SVG, with data.axis or "loss" as the label of the y axis, and data.baselines as
// horizontal lines with their names. A page calls chart.begin().

const chart = {
  log: false,
  width: 0,
  height: 300,
  left: 58,
  bottom: 44,

  begin() {
    byId("learning").hidden = false;
    byId("log")?.addEventListener("click", () => {
      this.log = !this.log;
      byId("log").setAttribute("aria-pressed", String(this.log));
      this.draw();
    });
    new ResizeObserver(() => {
      if (byId("chart").clientWidth !== this.width) this.draw();
    }).observe(byId("chart"));
    byId("chart").addEventListener("pointermove", (event) => this.hover(event));
    byId("chart").addEventListener("pointerleave", () => this.values(null));
    this.draw();
  },

  /** Returns whether a value can be drawn; on a log scale it must be positive. */
  drawable(value) {
    return value !== null && (!this.log || value > 0);
  },

  baselines() {
    return (data.baselines ?? []).filter(({ value }) => this.drawable(value));
  },

  scale() {
    const points = data.curves.flatMap((curve) => curve.points).filter(([, value]) => this.drawable(value));
    const steps = points.map(([step]) => step);
    const levels = [...points, ...this.baselines().map(({ value }) => [null, value])];
    const values = levels.map(([, value]) => (this.log ? Math.log10(value) : value));
    const span = (numbers, low) => {
      let [from, to] = [Math.min(...numbers, low), Math.max(...numbers)];
      if (!Number.isFinite(to)) [from, to] = [0, 1];
      return from === to ? [from - 0.5, to + 0.5] : [from, to];
    };
    const [x0, x1] = span(steps, Infinity);
    const [y0, y1] = span(values, this.log ? Infinity : 0);
    const [right, top] = [this.width - 12, 12];
    this.bounds = { x0, x1, y0, y1 };
    this.x = (step) => this.left + ((step - x0) / (x1 - x0)) * (right - this.left);
    this.y = (value) => {
      const level = this.log ? Math.log10(value) : value;
      return this.height - this.bottom - ((level - y0) / (y1 - y0)) * (this.height - this.bottom - top);
    };
  },

  /** Returns about `count` round numbers between two bounds. */
  ticks(from, to, count) {
    const rough = (to - from) / count;
    const power = 10 ** Math.floor(Math.log10(rough));
    const unit = power * [1, 2, 5, 10].find((factor) => factor * power >= rough);
    const found = [];
    for (let at = Math.ceil(from / unit - 1e-9); at * unit <= to + unit * 1e-9; at++) found.push(at * unit);
    return found;
  },

  levels() {
    const { y0, y1 } = this.bounds;
    if (!this.log) return this.ticks(y0, y1, 5);
    const found = [];
    for (let power = Math.floor(y0); power <= y1; power++)
      for (const factor of y1 - y0 > 2.5 ? [1] : [1, 2, 5]) found.push(factor * 10 ** power);
    return found.filter((level) => Math.log10(level) >= y0 - 1e-9 && Math.log10(level) <= y1 + 1e-9);
  },

  text(number) {
    return Number(number.toPrecision(4)).toLocaleString("en", { maximumSignificantDigits: 4 });
  },

  path(points) {
    let line = "";
    let pen = "M";
    for (const [step, value] of points) {
      if (this.drawable(value)) {
        line += `${pen}${this.x(step).toFixed(1)},${this.y(value).toFixed(1)}`;
        pen = "L";
      } else pen = "M";
    }
    return line;
  },

  draw() {
    this.width = Math.max(280, byId("chart").clientWidth);
    this.scale();
    const floor = this.height - this.bottom;
    const rows = this.levels().map((level) => {
      const y = this.y(level).toFixed(1);
      return `<line class="grid" x1="${this.left}" x2="${this.width - 12}" y1="${y}" y2="${y}"/><text x="${this.left - 9}" y="${y}" dy=".32em" text-anchor="end">${this.text(level)}</text>`;
    });
    const columns = this.ticks(this.bounds.x0, this.bounds.x1, this.width / 130).map(
      (step) => `<text x="${this.x(step).toFixed(1)}" y="${floor + 18}" text-anchor="middle">${this.text(step)}</text>`,
    );
    const curves = data.curves.map((curve, at) => `<path class="curve hue${at % 6}" d="${this.path(curve.points)}"/>`);
    const baselines = this.baselines().map(({ name, value }) => {
      const y = this.y(value).toFixed(1);
      return `<line class="baseline" x1="${this.left}" x2="${this.width - 12}" y1="${y}" y2="${y}"/><text x="${this.width - 12}" y="${y}" dy="-.5em" text-anchor="end">${escaped(name)}: ${this.text(value)}</text>`;
    });
    const axis = data.axis ?? "loss";
    const constants = this.baselines().map(({ name, value }) => `${name}: ${this.text(value)}.`);
    const label = [`${axis} against training step.`, ...data.curves.map((curve) => this.summary(curve)), ...constants].join(" ");
    byId("chart").innerHTML = `<svg viewBox="0 0 ${this.width} ${this.height}" role="img" aria-label="${escaped(label).replaceAll('"', "&quot;")}">
      ${rows.join("")}${columns.join("")}
      <text x="${(this.left + this.width) / 2}" y="${this.height - 6}" text-anchor="middle">training step</text>
      <text transform="translate(12 ${floor / 2}) rotate(-90)" text-anchor="middle">${escaped(axis)}${this.log ? " (log)" : ""}</text>
      ${curves.join("")}${baselines.join("")}<g id="cross"></g></svg>`;
    this.values(null);
  },

  summary(curve) {
    const points = curve.points.filter(([, value]) => value !== null);
    if (!points.length) return `${curve.name}: no finite value.`;
    const [first, last] = [points[0], points[points.length - 1]];
    return `${curve.name}: from ${this.text(first[1])} at step ${first[0]} to ${this.text(last[1])} at step ${last[0]}.`;
  },

  /** Returns the point of a curve nearest to a step, or its last point if step is null. */
  nearest(curve, step) {
    const points = curve.points.filter(([, value]) => this.drawable(value));
    if (step === null) return points[points.length - 1];
    return points.reduce((best, point) => (Math.abs(point[0] - step) < Math.abs(best[0] - step) ? point : best), points[0]);
  },

  hover(event) {
    const svg = byId("chart").firstElementChild;
    const box = svg.getBoundingClientRect();
    const at = ((event.clientX - box.left) / box.width) * this.width;
    const { x0, x1 } = this.bounds;
    const step = x0 + ((at - this.left) / (this.width - 12 - this.left)) * (x1 - x0);
    this.values(Math.min(x1, Math.max(x0, step)));
  },

  /** Shows in the legend the values at a step, and draws a vertical line; if step is null, shows the last values. */
  values(step) {
    const found = data.curves.map((curve) => this.nearest(curve, step));
    byId("legend-curves").innerHTML = data.curves
      .map((curve, at) => {
        const thin = curve.every > 1 ? ` (1 in ${curve.every} shown)` : "";
        const value = found[at] ? `${this.text(found[at][1])}</b> at step ${this.text(found[at][0])}` : "none</b>";
        return `<span class="hue${at % 6}"><i></i>${escaped(curve.name)}<b>${value}${thin}</span>`;
      })
      .join("");
    const line = step === null ? "" : `<line class="cross" x1="${this.x(step)}" x2="${this.x(step)}" y1="12" y2="${this.height - this.bottom}"/>`;
    const dots = found.map((point, at) => (step === null || !point ? "" : `<circle class="dot hue${at % 6}" r="3.5" cx="${this.x(point[0])}" cy="${this.y(point[1])}"/>`));
    byId("cross").innerHTML = line + dots.join("");
  },
};
