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

  /** Replaces the document by an editor with its parts. */
  edit() {
    if (this.form) return;
    this.form = element("form", "revision");
    this.form.setAttribute("aria-label", `Edit ${this.story.title}`);
    const box = element("div", "editor", this.form);
    box.contentEditable = "true";
    box.setAttribute("role", "textbox");
    box.setAttribute("aria-multiline", "true");
    box.setAttribute("aria-label", `Text and images of ${this.story.title}`);
    const alert = element("div", "problem");
    alert.setAttribute("role", "alert");
    const editor = new DocumentEditor(box, { fail: (error) => problem.show(error, alert) });
    editor.set(this.story.result);
    const label = element("label", "", this.form);
    label.textContent = "The model may change";
    const amount = element("output", "", label);
    const change = element("input", "", label);
    Object.assign(change, { type: "range", min: 5, max: 95, step: 5, value: Math.round(100 * (1 - data.model().edit_start)) });
    const showAmount = () => {
      amount.textContent = change.value < 30 ? "a little" : change.value < 65 ? "much" : "nearly all";
      change.setAttribute("aria-valuetext", amount.textContent);
    };
    change.addEventListener("input", showAmount);
    showAmount();
    const row = element("div", "actions", this.form);
    const submit = element("button", "primary", row);
    submit.textContent = "Revise";
    this.button("Cancel", row, () => this.closeEditor()).className = "quiet";
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
    this.form.append(alert);
    this.body.hidden = true;
    this.body.after(this.form);
    editor.focus();
  }

  closeEditor() {
    this.form.remove();
    this.form = null;
    this.body.hidden = false;
    show.reserve();
    this.root.querySelector(".edit").focus();
  }
}
