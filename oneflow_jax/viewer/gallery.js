// Start of the page of reconstructions, where only the training curves need a script.

function start() {
  if (data.curves.length) chart.begin();
}
