// Saves a finished document as a file: the server draws it, and the browser records the video.

const FRAME_MS = 250; // duration of a frame of a video, in milliseconds
const LAST_FRAME_MS = 2000;
const VIDEO_TYPES = ["video/mp4;codecs=avc1.42E01E", "video/mp4", "video/webm"];

/** Returns the type of video that this browser can record; undefined if it can record none. */
function videoType() {
  return globalThis.MediaRecorder && VIDEO_TYPES.find((type) => MediaRecorder.isTypeSupported(type));
}

/** File formats by the text of their button. */
function fileFormats() {
  const video = videoType();
  return { PNG: "png", GIF: "gif", ...(video && { [video.includes("mp4") ? "MP4" : "WebM"]: "video" }), HTML: "html", MD: "zip" };
}

function download(blob, name) {
  const link = element("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

/** Saves the document of a card in a format of `fileFormats`. */
async function saveStory(story, format) {
  const name = (story.prompt.match(/\w+/g) ?? ["document"]).slice(0, 6).join("_").toLowerCase();
  const body = { format: format === "video" ? "frames" : format, title: story.title, prompt: story.prompt, settings: story.settings, states: story.states };
  const answer = await post("demo/save", body);
  if (format !== "video") return download(await answer.blob(), `${name}.${format}`);
  const type = videoType();
  const count = Number(answer.headers.get("Frame-Count"));
  notice.show(`Recording the video: ${Math.ceil((count * FRAME_MS + LAST_FRAME_MS) / 1000)} seconds ...`);
  const blob = await recordVideo(await createImageBitmap(await answer.blob()), count, type);
  download(blob, `${name}.${type.includes("mp4") ? "mp4" : "webm"}`);
}

/** Records a video of frames that are stacked in one image; encoders need even sizes. */
async function recordVideo(stack, count, type) {
  const canvas = document.createElement("canvas");
  const height = stack.height / count;
  Object.assign(canvas, { width: 2 * Math.ceil(stack.width / 2), height: 2 * Math.ceil(height / 2) });
  const context = canvas.getContext("2d");
  const draw = (frame) => context.drawImage(stack, 0, frame * height, stack.width, height, 0, 0, canvas.width, canvas.height);
  draw(0);
  const recorder = new MediaRecorder(canvas.captureStream(30), { mimeType: type, videoBitsPerSecond: 4_000_000 });
  const chunks = [];
  recorder.addEventListener("dataavailable", (event) => chunks.push(event.data));
  const stopped = new Promise((resolve) => recorder.addEventListener("stop", resolve));
  recorder.start();
  const wait = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));
  for (let frame = 0; frame < count; frame++) {
    draw(frame);
    await wait(FRAME_MS);
  }
  // A recorder drops a canvas that does not change, so the last frame is drawn repeatedly.
  for (let waited = 0; waited < LAST_FRAME_MS; waited += FRAME_MS) {
    draw(count - 1);
    await wait(FRAME_MS);
  }
  recorder.stop();
  await stopped;
  return new Blob(chunks, { type: type.split(";")[0] });
}
