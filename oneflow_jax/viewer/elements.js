"use strict";
// Shared by all pages: the data that Python embeds in #data, and helpers for elements.

const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);

function element(tag, className, parent) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (parent) parent.append(made);
  return made;
}

function escaped(text) {
  const box = document.createElement("span");
  box.textContent = text;
  return box.innerHTML;
}
