// A document while it is generated: states from the server become frames of a card (card.js).

const TRANSPARENT = 0.1; // These two limits are those of viewer/trajectory.py.
const OPAQUE = 0.9;

function opacity(token, finished) {
  if (token.given || finished) return 100;
  return Math.ceil(100 * Math.min(1, Math.max(0, (token.confidence - TRANSPARENT) / (OPAQUE - TRANSPARENT))));
}

const pngUri = (base64) => `data:image/png;base64,${base64}`;

/** Decodes an image and returns its number in data.sheets. */
async function addSheet(base64) {
  const image = new Image();
  image.src = pngUri(base64);
  await image.decode();
  return data.sheets.push({ image, width: image.width, height: image.height }) - 1;
}

class LiveStory {
  /** `settings` are texts by name, which saved pages show. */
  constructor({ title, prompt, settings }) {
    Object.assign(this, { title, prompt, settings, words: [], frames: [], states: [], numbers: new Map(), sheets: new Map() });
  }

  /** Appends a frame: the document at time `t`; at the end it is finished. */
  async add(t, shown, finished) {
    const parts = [];
    for (const part of shown.parts) parts.push(part.tokens ? this.text(part, finished) : await this.image(part));
    this.frames.push([t, parts]);
    this.states.push({ t, parts: shown.parts });
  }

  text({ key, time, given, tokens }, finished) {
    const units = tokens.map((token) => this.unit(token.key, token.text, Number(token.given)));
    return [0, key, Number(given), time, units, tokens.map((token) => opacity(token, finished))];
  }

  /** Returns the index of a token in `words`. */
  unit(...word) {
    const name = JSON.stringify(word);
    if (!this.numbers.has(name)) this.numbers.set(name, this.words.push(word) - 1);
    return this.numbers.get(name);
  }

  async image({ key, time, given, image, noisy_image: noisy }) {
    const [prediction, state] = [await this.sheet(image), await this.sheet(noisy ?? image)];
    return [1, key, Number(given), time, state, 0, prediction, 0];
  }

  sheet(base64) {
    if (!this.sheets.has(base64)) this.sheets.set(base64, addSheet(base64));
    return this.sheets.get(base64);
  }
}
