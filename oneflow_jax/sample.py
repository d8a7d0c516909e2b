"""Fills the gaps of prompts and writes a page that shows every step: `--mode=sample`."""

import logging
from collections.abc import Mapping, Sequence

from etils import epath

from oneflow_jax import evaluate
from oneflow_jax.build import choice_record, sampling
from oneflow_jax.build import system as system_lib
from oneflow_jax.data import layout as layouts
from oneflow_jax.data import prompt, prompt_rows, sources, spelling
from oneflow_jax.data.document import Document
from oneflow_jax.errors import UserError
from oneflow_jax.generation.generator import Generator
from oneflow_jax.generation.running_batch import GeneratedBatch
from oneflow_jax.runtime import (
    compilation_cache,
    distributed,
    metric_writer,
    padding,
    plurals,
    workdir,
)
from oneflow_jax.shapes import PyTree
from oneflow_jax.viewer import filmstrip, from_samples, page, trajectory

FILMSTRIP_ROWS = 5
"""Number of steps that the film strip shows."""


def run(
    system: system_lib.System,
    folder: epath.Path,
    prompts: Sequence[str],
    *,
    edit: bool = False,
    output: epath.Path | None = None,
) -> epath.Path:
    """Fill the gaps of each prompt several times, and return the path of the page.

    Before it loads the parameters, the function logs a warning for each word that the model
    probably does not know. The page shows every step, and a film strip shows some steps of the
    first document. The function logs the finished documents. With `edit` it also logs the edits.

    Args:
        system: system of the run in `folder`.
        folder: folder with the checkpoint.
        prompts: prompts in the format of `data.prompt`.
        edit: whether the prompts are finished documents to edit.
        output: folder where the page is written; None for `folder`.

    Raises:
        UserError: the folder has no checkpoint, or a prompt is wrong.
    """
    documents = parse_prompts(system, prompts, edit=edit)
    compilation_cache.enable_user_cache()
    logging.info(
        "Sampling documents for %s. The program of the sampler is compiled first.",
        plurals.format_count(len(prompts), "prompt"),
    )
    generator = Generator(system, evaluate.load_ema_params(system, folder))
    path = (output or folder) / workdir.SAMPLES_PAGE
    return _generate_page(generator, folder, path, prompts, documents, edit=edit)


class PreviewWriter:
    """Writes pages of the configured prompts during training: `previews/<step>.html`."""

    def __init__(self, system: system_lib.System, folder: epath.Path) -> None:
        """Prepare previews of the run in `folder`; the first preview compiles the program."""
        self._system = system
        self._folder = folder
        self._prompts = system.config.sampling.prompts

    def __call__(self, step: int, params: PyTree) -> None:
        """Write a page of samples from the EMA parameters after a step."""
        (self._folder / workdir.PREVIEWS).mkdir(exist_ok=True)
        path = self._folder / workdir.PREVIEWS / f"{step}.html"
        generator = Generator(self._system, params)
        documents = parse_prompts(self._system, self._prompts)
        _generate_page(generator, self._folder, path, self._prompts, documents)


def _generate_page(
    generator: Generator,
    folder: epath.Path,
    path: epath.Path,
    prompts: Sequence[str],
    documents: Sequence[Document],
    *,
    edit: bool = False,
) -> epath.Path:
    system = generator.system
    config = system.config
    samples = config.sampling.num_samples
    repeated = [document for document in documents for _ in range(samples)]
    prompt_texts = [text for text in prompts for _ in range(samples)]
    grid = evaluate.time_grid(system, generator.params)
    plan = sampling.sampling_plan(config, system.paradigm, grid, edit=edit)
    max_nfe = 0
    batch_size = padding.padded_batch_size(system.mesh, len(repeated), config.evaluation.batch_size)
    views = []
    run = {"seed": config.sampling.seed, "batch": batch_size, "record": True}
    for generated in generator(repeated, plan, **run):
        rows = slice(len(views), len(views) + len(generated.documents))
        titles = [f"{n + 1}" for n in range(rows.start, rows.stop)]
        views += from_samples.build_views(
            system.layout, generated.trajectory, titles, prompt_texts[rows]
        )
        max_nfe = max(max_nfe, generated.nfe)
        _log_documents(system.layout, prompt_texts[rows], repeated[rows], generated, edit=edit)
    if distributed.is_primary():
        _write_page(system, folder, path, views, max_nfe, edit=edit)
    logging.info(
        "%s, at most %d forward passes per batch.",
        plurals.format_count(len(views), "document"),
        max_nfe,
    )
    return path


def _write_page(
    system: system_lib.System,
    folder: epath.Path,
    path: epath.Path,
    views: Sequence[trajectory.TrajectoryView],
    nfe: int,
    *,
    edit: bool,
) -> None:
    """Write the page, and the film strip next to it."""
    config = system.config
    last = len(views[0].frames) - 1
    frames = [round(i * last / (FILMSTRIP_ROWS - 1)) for i in range(FILMSTRIP_ROWS)]
    filmstrip.write_filmstrip(path.with_suffix(".png"), views[0], frames)
    page.write(
        path,
        views,
        curves=_read_curves(system, folder),
        settings=workdir.flatten_config(config) | {"forward passes (NFE)": str(nfe)},
        heading=f"{config.name}: text and images in {nfe} forward passes",
        notes=sources.list_attribution(config.source.name),
        # The last sentence is the diagnosis. On the page it comes first.
        findings=evaluate.describe_run(system, folder, path.parent)[::-1],
        sheet=_read_sheet(path.parent),
        baselines=_list_baselines(evaluate.read_metrics(folder, path.parent)),
        choices=choice_record.read(folder, config),
        intro=_intro_text(system, edit=edit),
    )


def _read_sheet(folder: epath.Path) -> bytes | None:
    """Return the PNG that the last evaluation wrote to `folder`, if it wrote one."""
    path = folder / workdir.SHEET
    return path.read_bytes() if path.exists() else None


def parse_prompts(
    system: system_lib.System, prompts: Sequence[str], *, edit: bool = False
) -> list[Document]:
    """Parse the prompts, check that they fit the canvas, and warn about unknown words.

    Raises:
        UserError: `prompts` is empty, a prompt is wrong or too long, or the model cannot edit.
    """
    if not prompts:
        raise UserError("sampling.prompts is empty. Give a prompt there or with --prompt.")
    sampling.sampling_plan(system.config, system.paradigm, "uniform", edit=edit)
    sizes = system.layout.codec.pixels, system.layout.shapes.crop_sizes
    documents = [prompt.parse(text, *sizes) for text in prompts]
    for document in documents:
        prompt_rows.check_prompt(system.layout, system.known_layouts, document, edit=edit)
        spelling.log_warnings(system.layout.vocab, document)
    return documents


def _log_documents(
    layout: layouts.Layout,
    prompts: Sequence[str],
    prompt_documents: Sequence[Document],
    generated: GeneratedBatch,
    *,
    edit: bool,
) -> None:
    """Log the generated documents of a batch with their prompts."""
    rows = zip(prompts, prompt_documents, generated.documents, generated.truncated, strict=True)
    for text, before, document, is_truncated in rows:
        logging.info("%s  ->  %s", text, prompt.format(document))
        if edit:
            _log_edits(layout, before, document)
        if is_truncated:
            logging.warning(
                "The document above filled its canvas of data.sequence_length=%d slots, which "
                "include those of deleted tokens and images. The model could not insert more.",
                layout.length,
            )


def _log_edits(layout: layouts.Layout, before: Document, after: Document) -> None:
    changes = prompt_rows.diff_documents(layout, before, after)
    for change in changes:
        logging.info("    %s", change)
    if not changes:
        logging.info("    nothing changed")


def _intro_text(system: system_lib.System, *, edit: bool) -> str:
    if edit:
        return page.INTRO_EDIT
    return page.INTRO_AUTOREGRESSIVE if system.layout.has_markers else page.INTRO_CONCURRENT


def _read_curves(
    system: system_lib.System, folder: epath.Path
) -> dict[str, list[tuple[float, float]]]:
    """Return the page's curves by name: training loss, its terms, and two held-out terms."""
    terms = [term for term, _ in system.paradigm.weights]
    names = {"train/loss": "training, sum"}
    names |= {f"train/{term}": f"training, {term}" for term in terms}
    names |= {f"eval/loss_{term}": f"held-out, {term}" for term in (terms[0], "image")}
    curves = metric_writer.read_curves(folder / workdir.LOGS, list(names))
    return {names[scalar]: curve for scalar, curve in curves.items()}


def _list_baselines(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return the losses of held-out documents without a model, by their names on the page."""
    loss = metrics.get("reference_text_loss_unigram_heldout")
    return {} if loss is None else {"held-out, text, by token frequencies": loss}
