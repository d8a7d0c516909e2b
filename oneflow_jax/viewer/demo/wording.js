// Errors of requests in the words of this page.

const NO_PARTS = "The document is empty. Write text, and add a gap with “+ image” or “+ text”.";
const NO_GAP = "The document has no gap. Add one with “+ image” or “+ text”: the model fills the gaps.";
const GAP_IN_REVISION = "The model revises finished documents only. Remove the boxes.";
const WORDS = [
  [/^.*sequence_length.*$/s, "The document is too long for this model. Remove some text or images."],
  [/^body: too large.*$/s, "The images are too large together. Remove some of them."],
  [/^images: \d+ are too many.*$/s, "The document has too many images. Remove some of them."],
  [/^queue=.*$/s, "The server has too many requests. Try again in a minute."],
  [/^<document>: this model needs it as the last part.*$/s, "Move the box “any parts” to the end of the document."],
  [/^<document>: .*$/s, "The model knows no document that begins like this. Replace the box “any parts” by “+ image” or “+ text”."],
  [/^text (['"]).*\1: the (?:tokenizer (has no token for|spells)|model (probably does not know))/s, "The model $2$3"],
  [/, which its tokenizer spells in \d+ tokens/, ""],
];

/** Returns a message of the server, with the parts that match WORDS replaced. */
function reword(message) {
  return WORDS.reduce((text, [pattern, words]) => text.replace(pattern, words), message);
}

/** Throws an error if the model cannot fill the document. */
function checkPrompt(parts) {
  if (!parts.length) throw new Error(NO_PARTS);
  if (!parts.some((part) => part.gap)) throw new Error(NO_GAP);
  if (!data.model().any_parts && parts.some((part) => part.gap === "<document>"))
    throw new Error("This model cannot choose parts itself. Replace the box “any parts” by “+ image” or “+ text”.");
}

/** Throws an error if the model cannot revise the document. */
function checkRevision(parts) {
  if (!parts.length) throw new Error("The document is empty. Write text, or drop an image on it.");
  if (parts.some((part) => part.gap)) throw new Error(GAP_IN_REVISION);
}
