// A card of the demo: a document that can be saved, edited in place and revised by the model.

class ResultCard extends Card {
  /** `revise(card, parts, change)` is called when the user submits the edited document. */
  constructor(story, index, revise) {
    super(story, index);
    Object.assign(this, { index, revise });
  }

  /** Draws the newest frame of a document that is still generated. */
  grow() {
    for (const part of this.frame(Infinity)[1])
      if (!part[0]) for (const unit of part[4]) this.settled.set(this.story.words[unit][0], this.story.words[unit][1]);
    this.body.className = `document${this.pairing()}`;
  }

  /** Adds the buttons of a finished document. */
  finish(canEdit) {
    const bar = element("footer", "card-actions", this.root);
    if (canEdit) this.button("Edit", bar, () => this.edit()).className = "edit";
    const group = element("div", "formats", bar);
    group.setAttribute("role", "group");
    group.setAttribute("aria-label", `Save ${this.story.title}`);
    element("span", "label", group).textContent = "Save";
    for (const [name, format] of Object.entries(fileFormats())) {
      const button = this.button(name, group, async () => {
        button.disabled = true;
        try {
          await saveStory(this.story, format);
          notice.show(`${this.story.title} was saved as ${name}.`);
        } catch (error) {
          problem.show(error);
        } finally {
          button.disabled = false;
        }
      });
    }
  }

  button(text, parent, action) {
    const button = element("button", "", parent);
    button.type = "button";
    button.textContent = text;
    button.addEventListener("click", action);
    return button;
  }

  /** Replaces the document by an editor with its parts; the form is a template of page.html. */
  edit() {
    if (this.form) return;
    this.form = byId("revision").content.firstElementChild.cloneNode(true);
    this.form.setAttribute("aria-label", `Edit ${this.story.title}`);
    const [box, change, alert] = [".editor", "input", ".problem"].map((part) => this.form.querySelector(part));
    box.setAttribute("aria-label", `Text and images of ${this.story.title}`);
    change.id = this.form.querySelector("label").htmlFor = `change-${this.index}`;
    change.value = Math.round(100 * (1 - data.model().edit_start));
    this.showChange();
    change.addEventListener("input", () => this.showChange());
    const editor = new DocumentEditor(box, { fail: (error) => problem.show(error, alert) });
    editor.set(this.story.result);
    this.form.querySelector(".quiet").addEventListener("click", () => this.closeEditor());
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      try {
        checkRevision(editor.parts());
      } catch (error) {
        return problem.show(error, alert);
      }
      this.revise(this, editor.parts(), change.value / 100);
    });
    this.form.addEventListener("keydown", (event) => {
      if (event.key === "Escape") this.closeEditor();
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) this.form.requestSubmit();
    });
    this.body.hidden = true;
    this.body.after(this.form);
    editor.focus();
  }

  /** Shows in words how much the model may change. */
  showChange() {
    const change = this.form.querySelector("input");
    const words = change.value < 30 ? "a little" : change.value < 65 ? "much" : "nearly all";
    this.form.querySelector("output").textContent = words;
    change.setAttribute("aria-valuetext", words);
  }

  closeEditor() {
    this.form.remove();
    this.form = null;
    this.body.hidden = false;
    show.reserve();
    this.root.querySelector(".edit").focus();
  }
}
