"""Tests of fine-tuning: a run on own documents that begins with another model."""

import json
import logging
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from configs import common, finetune
from oneflow_jax import evaluate
from oneflow_jax.build import choices, data, row_lengths
from oneflow_jax.build import finetune as finetune_lib
from oneflow_jax.canvas import Modality
from oneflow_jax.data import prompt, toy
from oneflow_jax.data import vocab as vocabs
from oneflow_jax.errors import UserError
from oneflow_jax.nn import lora
from oneflow_jax.runtime import sharding, workdir
from oneflow_jax.training import export, loop, train_state
from tests import runs, tiny
from tests.data.custom import examples

WORDS = ("zeppelin", "quokka")
"""Words of the own documents that the start model's tokenizer lacks."""


@pytest.fixture(scope="module")
def documents(tmp_path_factory):
    """Return a folder with 40 captions of `WORDS`, in alternation, and their images."""
    folder = tmp_path_factory.mktemp("documents")
    for n in range(40):
        text = f"{WORDS[n % 2]} \u00f1"
        image = examples.png(f"rgb({6 * n}, 0, 0)")
        examples.write_files(folder, {f"{n}.png": image, f"{n}.txt": text.encode()})
    return folder


@pytest.fixture(scope="module")
def start():
    """Return the system and folder of the start model, a tiny run."""
    return runs.trained_run()


def make_config(start_folder, documents, data_dir, **changes):
    config = finetune.get_config(str(start_folder))
    model = config.model.copy_and_resolve_references()
    config = common.shrink_for_debugging(config)
    config.model = model
    config.finetune.keep_fraction = 0.0
    config.source.path, config.data.dir = str(documents), str(data_dir)
    config.source.heldout_fraction = 0.3
    config.update_from_flattened_dict({k.replace("__", "."): v for k, v in changes.items()})
    return config.lock()


def init_params(system):
    with sharding.mesh_context(system.mesh):
        return system.initialize_from(train_state.init_sharded(system)).params


@pytest.fixture(scope="module")
def tuned(start, documents, tmp_path_factory):
    """Return the system, folder and initial parameters of a run that fine-tunes `start`."""
    folder = epath.Path(tmp_path_factory.mktemp("tuned"))
    system = runs.prepare_system(folder, make_config(start[1], documents, folder / "data"))
    return system, folder, init_params(system)


def load_start(start):
    system, folder = start
    return evaluate.load_ema_params(system, folder)


def test_sizes_are_those_of_the_start_model(start, documents, tmp_path):
    saved = workdir.load_config(start[1])
    config = finetune.get_config(str(start[1]))
    for name in ("codec", "model", "paradigm"):
        assert config[name].to_json() == saved[name].to_json()
    assert config.data.sequence_length == saved.data.sequence_length
    assert config.data.text_slot_multiple == saved.data.text_slot_multiple
    assert config.source.pixels == saved.codec.pixels
    assert {"data.text_slot_multiple", "data.sequence_length"} <= set(config.choose)
    config.finetune.max_added_tokens = 7
    assert config.data.vocab_size == saved.data.vocab_size + 7


def test_gaps_have_no_length_in_paradigms_of_variable_length(start, tmp_path):
    saved = json.loads((start[1] / workdir.CONFIG).read_text())
    saved["data"]["text_slot_multiple"] = 0
    (tmp_path / workdir.CONFIG).write_text(json.dumps(saved))
    choose = finetune.get_config(str(tmp_path)).choose
    assert "data.text_slot_multiple" not in choose
    assert "data.sequence_length" in choose


def test_tokens_are_kept_and_added(start, tuned):
    old, new = start[0].layout.vocab, tuned[0].layout.vocab
    record = json.loads((tuned[1] / workdir.FINETUNE).read_text())
    assert {*WORDS, "\u00f1"} <= set(record["added"])
    assert record["added_tokens"] == len(new.text) - len(old.text) == len(record["added"])
    for word in WORDS:
        (token,) = new.encode(word)
        assert token not in old.text
    for n in range(5):
        text = tiny.captions(5)[n].text()
        assert new.encode(text) == old.encode(text)


def test_rows_of_tokens_are_kept_and_means(start, tuned):
    """Check that old ids keep their rows to the last bit, and that new words are means of parts."""
    before, params = load_start(start), tuned[2]
    old, new = start[0].layout.vocab, tuned[0].layout.vocab
    kept = slice(0, old.text.stop)
    (token,) = new.encode(WORDS[0])
    parts = [part for part in old.encode(WORDS[0], allow_unknown=True) if part != vocabs.UNKNOWN]
    assert len(parts) > 1
    for path, axis in ((("rows",), 0), (("outputs_text_logits", "kernel"), 1)):
        was, now = (np.moveaxis(read(tree, path), axis, 0) for tree in (before, params))
        np.testing.assert_array_equal(now[kept], was[kept])
        np.testing.assert_allclose(now[token], was[parts].mean(axis=0), rtol=1e-5, atol=1e-6)
    tiny.assert_trees_close(params["backbone"], before["backbone"], atol=0)


def read(tree, path):
    for name in path:
        tree = tree[name]
    return np.asarray(tree)


def test_run_trains_resumes_and_says_what_it_does(tuned, caplog):
    system, folder, _ = tuned
    with caplog.at_level(logging.INFO):
        loop.run(system, folder)
    (block,) = [text for text in caplog.messages if text.startswith("Fine-tuning:")]
    assert all(word in block for word in (*WORDS, "documents", "text slots", "2 of 8 rows"))
    losses = evaluate.load_ema_params(system, folder)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(losses))
    caplog.clear()
    with caplog.at_level(logging.INFO):
        loop.run(runs.prepare_system(folder, system.config), folder)
    assert any(text == "Resuming from step 2." for text in caplog.messages)


def test_another_start_model_after_the_first_checkpoint(start, documents, tuned, tmp_path):
    first, second = (epath.Path(tmp_path / name) for name in ("first", "second"))
    for folder in (first, second):
        runs.copy_newest(start[1], folder)
    other = json.loads((second / workdir.CONFIG).read_text()) | {"seed": 5}
    (second / workdir.CONFIG).write_text(json.dumps(other))
    data_dir = tuned[0].config.data.dir
    config, changed = (make_config(folder, documents, data_dir) for folder in (first, second))
    run = epath.Path(tmp_path / "run")
    run.mkdir()
    data.make_layout(config, run)
    (run / workdir.LAYOUTS).write_text("layouts in tokens of the first start model")
    finetune_lib.check_start(changed, run)
    assert not (run / workdir.TOKENIZER).exists()
    assert not (run / workdir.LAYOUTS).exists()
    data.make_layout(config, run)
    (run / workdir.CHECKPOINTS / "1").mkdir(parents=True)
    finetune_lib.check_start(config, run)
    with pytest.raises(UserError, match="began with another start model"):
        finetune_lib.check_start(changed, run)
    finetune_lib.check_start(changed, run, accept_changes=True)


def test_documents_of_the_start_model_are_kept(start, documents, tuned):
    data_dir, layout = tuned[0].config.data.dir, tuned[0].layout
    config = make_config(start[1], documents, data_dir, finetune__keep_fraction=0.4)
    config = config.copy_and_resolve_references().unlock()
    config.finetune.start_source = {"name": "toy", "documents": 30}
    mixed = data.open_pipeline_split(config, layout, "train")
    texts = [mixed[n].text() for n in range(len(mixed))]
    own = [text for text in texts if text.startswith(WORDS)]
    assert len(own) / len(texts) == pytest.approx(0.6, abs=0.01)
    assert {*texts} - {*own} == {document.text() for document in toy.Toy(documents=30)}
    heldout = data.open_pipeline_split(config, layout, "heldout")
    assert all(document.text().startswith(WORDS) for document in heldout)


@pytest.fixture(scope="module")
def long_documents(tmp_path_factory):
    """Return a folder with 40 captions of 20 words, one of 40 words, and their images."""
    folder = tmp_path_factory.mktemp("long")
    for n in range(41):
        text = " ".join([WORDS[n % 2]] * (40 if n == 40 else 20))
        image = examples.png(f"rgb({6 * n}, 0, 0)")
        examples.write_files(folder, {f"{n}.png": image, f"{n}.txt": text.encode()})
    return folder


def choose_lengths(config, folder):
    config = config.copy_and_resolve_references().unlock()
    config.choose = ("data.text_slot_multiple", "data.sequence_length")
    return choices.choose(config.lock(), epath.Path(folder), "train")


def test_lengths_fit_the_new_texts(start, long_documents, tmp_path):
    """Check gaps and rows: a word is one token of the extended vocabulary."""
    given = make_config(start[1], long_documents, tmp_path / "data")
    config = choose_lengths(given, tmp_path)
    assert config.data.text_slot_multiple == 24
    assert config.data.sequence_length >= row_lengths.MIN_ROW > given.data.sequence_length
    block = describe_lengths(config, tmp_path)
    slots = given.data.text_slot_multiple
    assert (
        f"24, because 95% of your texts have at most 20 tokens; the start model had {slots}"
        in block
    )
    assert "documents, 0 are split and 0 dropped" in block
    system = runs.prepare_system(tmp_path, config)
    gap = system.layout.prompt_row(prompt.parse("<text> <image>", config.codec.pixels))
    assert (gap["modality"] == Modality.TEXT).sum() == 1 + config.data.text_slot_multiple


def test_given_lengths_and_what_exceeds_them(start, long_documents, tmp_path):
    changes = {"data__text_slot_multiple": 8, "data__sequence_length": 24}
    config = make_config(start[1], long_documents, tmp_path / "data", **changes)
    block = describe_lengths(config, tmp_path)
    documents = len(data.open_split(config, "train"))
    assert "text slots   8, as given; 95% of your texts have at most" in block
    assert f"{documents} of {documents} texts exceed a gap" in block
    assert f"of {documents} documents, {documents} are split and 0 dropped" in block


def test_short_texts_keep_the_lengths_of_the_start_model(start, documents, tmp_path):
    given = make_config(start[1], documents, tmp_path / "data", data__sequence_length=600)
    config = choose_lengths(given, tmp_path)
    assert config.data.text_slot_multiple == given.data.text_slot_multiple
    parent = workdir.load_config(start[1])
    assert config.data.sequence_length >= parent.data.sequence_length


def test_rows_fit_the_documents_of_the_start_model(start, documents, tmp_path, monkeypatch):
    config = make_config(start[1], documents, tmp_path / "data", finetune__keep_fraction=0.4)
    config = config.copy_and_resolve_references().unlock()
    config.finetune.start_source = {"name": "toy", "documents": 30}
    layout = data.make_layout(config, epath.Path(tmp_path))
    own = len(data.open_split(config, "train"))
    monkeypatch.setattr(
        row_lengths.overflow,
        "list_document_lengths",
        lambda source, *_: [40 if len(source) == own else 250] * 30,
    )
    slots, reason = row_lengths.choose_sequence_length(config, layout)
    assert slots == 256
    assert reason.startswith("because 95% of the start model's documents need at most 250 slots;")


def describe_lengths(config, folder):
    return row_lengths.describe(config, data.make_layout(config, epath.Path(folder)))


def test_missing_documents_of_the_start_model_are_refused(start, documents, tuned, tmp_path):
    config = make_config(start[1], documents, tuned[0].config.data.dir)
    config = config.copy_and_resolve_references().unlock()
    config.finetune.keep_fraction = 0.4
    config.finetune.start_source = config.source.to_dict() | {"path": str(tmp_path / "moved")}
    with pytest.raises(UserError, match=r"keep_fraction=0\.4: .*moved.*keep_fraction=0, to train"):
        data.make_layout(config, epath.Path(tmp_path))


def test_start_models_that_cannot_be_used(tmp_path):
    with pytest.raises(UserError, match=r"--from=.*no config\.json"):
        finetune.get_config(str(tmp_path))
    (tmp_path / workdir.CONFIG).write_text('{"models": {}}')
    with pytest.raises(UserError, match=r"--from=.*document model"):
        finetune.get_config(str(tmp_path))


@pytest.fixture(scope="module")
def tuned_lora(start, documents, tmp_path_factory):
    """Return the system, folder and initial parameters of a run with LoRA."""
    folder = epath.Path(tmp_path_factory.mktemp("lora"))
    config = make_config(start[1], documents, folder / "data", finetune__lora_rank=2)
    system = runs.prepare_system(folder, config)
    return system, folder, init_params(system)


def test_lora_starts_with_the_start_model(tuned, tuned_lora):
    merged = tuned_lora[0].merge_params(tuned_lora[2])
    tiny.assert_trees_close(merged, tuned[2], atol=0)


def test_lora_trains_only_factors_and_added_tokens(tuned_lora):
    system, folder, before = tuned_lora
    loop.run(system, folder)
    state, _ = runs.load_state(system, folder)
    old_tokens = json.loads((folder / workdir.FINETUNE).read_text())["start_text_stop"]
    base = {name: tree for name, tree in state.params.items() if name != lora.NAME}
    tiny.assert_trees_close(base, {name: before[name] for name in base}, atol=0)
    changed = [bool(np.any(leaf)) for leaf in jax.tree.leaves(state.params[lora.NAME])]
    assert all(changed)
    merged = system.merge_params(jax.tree.map(jnp.asarray, state.params))
    np.testing.assert_array_equal(merged["rows"][:old_tokens], before["rows"][:old_tokens])
    for word in WORDS:
        (token,) = system.layout.vocab.encode(word)
        assert np.any(merged["rows"][token] != before["rows"][token])


def test_export_of_lora_loads_like_any_other(tuned_lora, tmp_path):
    system, folder, _ = tuned_lora
    loop.run(system, folder)
    output = epath.Path(tmp_path / "export")
    export.export(
        finetune_lib.drop_section(system.config),
        folder,
        output,
        system.abstract_state.ema,
        merge=system.merge_params,
    )
    loaded = workdir.load_config(output)
    assert "finetune" not in loaded
    plain = runs.system_lib.system(loaded.lock(), output, "sample")
    params = evaluate.load_ema_params(plain, output)
    tiny.assert_trees_close(params, evaluate.load_ema_params(system, folder), rtol=1e-3, atol=1e-4)
    with pytest.raises(UserError, match=r"trained with LoRA\. Export it"):
        finetune_lib.check_merged(system.config, folder)
    finetune_lib.check_merged(loaded, output)
    assert math.isfinite(float(params["rows"].sum()))
