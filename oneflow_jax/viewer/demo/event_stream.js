// Requests to the server, and the events with which it answers.

const UNREACHABLE = "The server does not answer. Look at the terminal in which oneflow demo runs.";

/** Sends a request; an Error has a message for the user. */
async function request(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error(UNREACHABLE);
  }
  if (answer.ok) return answer;
  const body = await answer.json().catch(() => ({}));
  throw new Error(body.message ?? `The server failed (${answer.status}). Look at its terminal.`);
}

function post(path, body, signal) {
  return request(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body), signal });
}

/** Yields the server-sent events of an answer, as {name, data}. */
async function* readEvents(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    rest += value;
    for (let end; (end = rest.indexOf("\n\n")) >= 0; rest = rest.slice(end + 2)) {
      const event = parseEvent(rest.slice(0, end));
      if (event) yield event;
    }
  }
}

/** Returns null for a comment, with which the server keeps the connection open. */
function parseEvent(block) {
  const fields = Object.fromEntries(block.split("\n").filter((line) => !line.startsWith(":")).map((line) => line.split(/: (.*)/s)));
  return fields.event ? { name: fields.event, data: JSON.parse(fields.data) } : null;
}
