// Start of the page of samples, whose documents are finished.

async function start() {
  for (const sheet of data.sheets) {
    sheet.image = new Image();
    sheet.image.src = sheet.uri;
  }
  await Promise.all(data.sheets.map((sheet) => sheet.image.decode()));
  byId("documents").append(...show.cards.map((card) => card.root));
  byId("step").max = show.last();
  const count = (n, what) => `${n} ${what}${n === 1 ? "" : "s"}`;
  byId("size").textContent = `${count(show.cards.length, "document")}, ${count(show.last(), "step")}`;
  byId("theme").setAttribute("aria-pressed", String(dark()));
  byId("settings").hidden = !byId("settings").querySelector("tr");
  show.reserve();
  listen();
  show.open();
  if (data.curves.length) chart.begin();
  document.body.dataset.ready = "yes";
}
