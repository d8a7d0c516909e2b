// A document that the user writes: text, boxes for gaps, and thumbnails of images.

const TAG = /<(?:image(?: +\d+:\d+)?|document|text(?::\d+)?)>/;
const MAX_SIDE = 512; // in pixels; the models' images are smaller

/** Returns an image file as a PNG in a data URI, scaled down to MAX_SIDE. */
async function readImage(file) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    throw new Error(`${file.name || "The file"} cannot be read as an image. Use a PNG, JPEG or WebP file.`);
  }
  const scale = Math.min(1, MAX_SIDE / Math.max(bitmap.width, bitmap.height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(bitmap.width * scale));
  canvas.height = Math.max(1, Math.round(bitmap.height * scale));
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  return canvas.toDataURL("image/png");
}

/** Escapes text for the prompt syntax of data/prompt.py. */
function escapePrompt(text) {
  return text.replace(/(\\*)</g, "$1$1\\<");
}

/** Splits a prompt without given images into {text} and {gap}, as data/prompt.py does. */
function splitPrompt(prompt) {
  const parts = [];
  let text = "";
  let at = 0;
  for (const match of prompt.matchAll(/(\\*)<(?:(image(?: +\d+:\d+)?|document|text(?::\d+)?)>)?/g)) {
    const [whole, slashes, tag] = match;
    text += prompt.slice(at, match.index) + "\\".repeat(slashes.length / 2);
    at = match.index + whole.length;
    if (tag && slashes.length % 2 === 0) {
      parts.push({ text }, { gap: `<${tag}>` });
      text = "";
    } else text += whole.slice(slashes.length);
  }
  parts.push({ text: text + prompt.slice(at) });
  return parts.map((part) => (part.gap ? part : { text: part.text.trim() })).filter((part) => part.text !== "");
}

function makeGap(tag) {
  const gap = element("span", "gap");
  gap.contentEditable = "false";
  gap.dataset.gap = tag;
  gap.textContent = tag === "<document>" ? "any parts" : tag.slice(1, -1).replace(/text:(\d+)/, "text, $1 tokens");
  gap.setAttribute("role", "img");
  gap.setAttribute("aria-label", `gap: ${gap.textContent}`);
  return gap;
}

function makeThumbnail(source, name) {
  const image = element("img", "thumbnail");
  image.contentEditable = "false";
  image.src = source;
  image.alt = name ? `your image ${name}` : "image";
  return image;
}

/** Returns nodes for parts: {text}, {gap} or {image}, with a data URI. */
function renderParts(parts) {
  return parts.flatMap((part) => [part.gap ? makeGap(part.gap) : part.image ? makeThumbnail(part.image) : part.text, " "]);
}

class DocumentEditor {
  /** `fail` shows the message of an error; `change` is called after each change. */
  constructor(root, { fail, change = () => {} }) {
    Object.assign(this, { root, fail, change, caret: null });
    root.addEventListener("input", () => this.update());
    root.addEventListener("paste", (event) => this.paste(event));
    root.addEventListener("dragover", (event) => this.hover(event, true));
    root.addEventListener("dragleave", (event) => this.hover(event, false));
    root.addEventListener("drop", (event) => this.drop(event));
    document.addEventListener("selectionchange", () => this.remember());
    this.update();
  }

  /** Keeps the caret, since buttons take the focus before they insert something. */
  remember() {
    const selection = getSelection();
    if (selection.rangeCount && this.root.contains(selection.anchorNode)) this.caret = selection.getRangeAt(0).cloneRange();
  }

  update() {
    for (const node of this.textNodes()) this.replaceTags(node);
    this.root.classList.toggle("empty", !this.parts().length);
    this.change();
  }

  /** Replaces the tags in a text node by boxes; the caret stays where it is in the text. */
  replaceTags(node) {
    let offset = this.caret?.startContainer === node ? this.caret.startOffset : node.length;
    let rest = node;
    for (let typed; (typed = TAG.exec(rest.data)); ) {
      const after = rest.splitText(typed.index);
      after.data = after.data.slice(typed[0].length);
      this.caret = document.createRange();
      this.caret.setStartBefore(after);
      this.insert(makeGap(typed[0]));
      offset -= typed.index + typed[0].length;
      rest = after;
    }
    if (rest === node || offset <= 0 || !rest.length) return;
    this.caret.setStart(rest, Math.min(offset, rest.length));
    this.caret.collapse(true);
    if (document.activeElement === this.root) this.focus();
  }

  textNodes() {
    const walker = document.createTreeWalker(this.root, NodeFilter.SHOW_TEXT, (node) =>
      node.parentElement.closest(".gap") ? NodeFilter.FILTER_REJECT : NodeFilter.FILTER_ACCEPT);
    const nodes = [];
    while (walker.nextNode()) nodes.push(walker.currentNode);
    return nodes;
  }

  /** Inserts an element at the caret, or at the end, with the caret behind it. */
  insert(node) {
    let range = this.caret;
    if (!range || !this.root.contains(range.startContainer)) {
      range = document.createRange();
      range.selectNodeContents(this.root);
      range.collapse(false);
    }
    range.deleteContents();
    // The caret needs text on both sides of an element that cannot be edited.
    const space = document.createTextNode(" ");
    range.insertNode(space);
    range.insertNode(node);
    if (node.nodeType === Node.ELEMENT_NODE && !/\s$/.test(node.previousSibling?.data ?? "")) node.before(" ");
    range.setStart(space, 1);
    range.collapse(true);
    this.caret = range;
    if (document.activeElement === this.root) this.focus();
  }

  focus() {
    this.root.focus({ preventScroll: true });
    if (!this.caret || !this.root.contains(this.caret.startContainer)) return;
    getSelection().removeAllRanges();
    getSelection().addRange(this.caret);
  }

  insertText(text) {
    this.insert(document.createTextNode(text));
    this.finish();
  }

  insertGap(tag) {
    this.insert(makeGap(tag));
    this.finish();
  }

  async insertFiles(files) {
    const errors = [];
    for (const file of files) {
      try {
        this.insert(makeThumbnail(await readImage(file), file.name));
      } catch (error) {
        errors.push(error);
      }
    }
    this.finish(); // first, because a change removes earlier messages
    for (const error of errors) this.fail(error);
  }

  finish() {
    this.focus();
    this.root.normalize();
    this.update();
  }

  paste(event) {
    event.preventDefault();
    const files = [...event.clipboardData.files].filter((file) => file.type.startsWith("image/"));
    if (files.length) this.insertFiles(files);
    else document.execCommand("insertText", false, event.clipboardData.getData("text/plain"));
  }

  hover(event, over) {
    event.preventDefault();
    this.root.classList.toggle("dragging", over);
  }

  drop(event) {
    if (!event.dataTransfer.files.length) return; // The browser moves text by itself.
    this.hover(event, false);
    const place = document.caretPositionFromPoint?.(event.clientX, event.clientY);
    if (place && this.root.contains(place.offsetNode)) {
      this.caret = document.createRange();
      this.caret.setStart(place.offsetNode, place.offset);
    }
    this.insertFiles(event.dataTransfer.files);
  }

  /** Replaces the content by parts, see `renderParts`. */
  set(parts) {
    this.root.replaceChildren(...renderParts(parts));
    this.root.normalize();
    this.caret = null;
    this.update();
  }

  /** Returns the content as parts, see `renderParts`. */
  parts() {
    const parts = [];
    const add = (text) => {
      if (parts.at(-1)?.text !== undefined) parts.at(-1).text += text;
      else parts.push({ text });
    };
    const walk = (node) => {
      if (node.nodeType === Node.TEXT_NODE) add(node.data);
      else if (node.dataset?.gap) parts.push({ gap: node.dataset.gap });
      else if (node.tagName === "IMG") parts.push({ image: node.src });
      else {
        if (node !== this.root) add(" "); // a new line
        node.childNodes.forEach(walk);
      }
    };
    walk(this.root);
    for (const part of parts) if (part.text) part.text = part.text.replace(/\s+/g, " ").trim();
    return parts.filter((part) => part.text !== "");
  }

  /** Returns the content in prompt syntax, and its images by name. */
  prompt() {
    const images = {};
    const pieces = this.parts().map((part) => {
      if (part.gap) return part.gap;
      if (!part.image) return escapePrompt(part.text);
      const name = String(Object.keys(images).length + 1);
      images[name] = part.image;
      return `<image:${name}>`;
    });
    return { prompt: pieces.join(" "), images };
  }
}
