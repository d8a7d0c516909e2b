// A page of reconstructions: only its curves need a script.

function start() {
  if (data.curves.length) chart.begin();
}
