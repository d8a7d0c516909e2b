"""The page's widgets, built with Gradio."""

import functools

import gradio

from oneflow_jax.demo import answers

EXAMPLES = (
    "a picture of a tiger: <image>",
    "<text> <image>",
    "first a fox <image>, then <text> <image>",
    "<text> <image> and <text> <image>",
)

_HELP = (
    "Write a document with gaps. **`<image>`** is an image to generate, **`<text>`** is text to "
    "generate, **`<text:3>`** is three tokens of text; models that choose lengths themselves also "
    "accept **`<document>`**. **`<image:NAME>`** is an image that you add under Images. "
    "**`\\<`** is the character <. Text and images you provide are kept unchanged. "
    "All steps run as one program. When the program is done, the page shows the steps one after "
    "another."
)


def make_page(models: answers.ModelRegistry, note: str) -> gradio.Blocks:
    """Build the page, with the text `note` at its end."""
    with gradio.Blocks(title="oneflow_jax", analytics_enabled=False) as blocks:
        gradio.Markdown("# Text and images at the same time")
        with gradio.Row():
            with gradio.Column():
                text = gradio.Textbox(EXAMPLES[2], lines=3, label="Document", info="text with gaps")
                make = gradio.Button("Generate", variant="primary")
                gradio.Examples([[example] for example in EXAMPLES], inputs=[text])
                name = gradio.Dropdown(list(models.names), label="Model", value=models.names[0])
                steps = gradio.Slider(1, answers.MAX_STEPS, 9, step=1, label="Steps")
                guidance = gradio.Slider(1, 5, 1, step=0.25, label="Image guidance scale")
                seed = gradio.Number(0, precision=0, label="Seed")
                files = gradio.File(
                    label="Images", file_count="multiple", file_types=["image"], height=120
                )
            with gradio.Column():
                output = gradio.HTML(label="The document")
        gradio.Markdown(_HELP)
        gradio.Markdown(note)
        inputs = [name, text, files, steps, guidance, seed]
        generate = functools.partial(answers.stream_html, models)
        # The server handles one request at a time, because all requests use the same devices.
        gradio.on([make.click, text.submit], generate, inputs, output, concurrency_limit=1)
    return blocks


def serve(blocks: gradio.Blocks, port: int, *, wait: bool) -> str:
    """Serve the page on this machine only, and return its address.

    Args:
        blocks: the page that `make_page` built.
        port: the port; 0 for any free one.
        wait: whether to return only after the server has stopped.
    """
    theme = gradio.themes.Base(
        primary_hue="orange", font=["Georgia", "serif"], font_mono=["monospace"]
    )
    _, address, _ = blocks.queue().launch(
        server_name="127.0.0.1",
        server_port=port or None,
        prevent_thread_lock=not wait,
        quiet=True,
        theme=theme,
        footer_links=[],
    )
    return address
