"""Tests of runs that start from a pretrained language model; tests/parity compares their logits."""

import jax
import numpy as np
import pytest
from etils import epath

import oneflow_jax as of
from configs import language_model as config_file
from oneflow_jax.build import import_run, init_from
from oneflow_jax.build import system as system_lib
from oneflow_jax.data import vocab
from oneflow_jax.data.pretrained_vocab import PretrainedVocab
from oneflow_jax.errors import UserError
from oneflow_jax.runtime import sharding, workdir
from oneflow_jax.training import export, loop, train_state
from tests import runs
from tests.data.custom import examples
from tests.pretrained import random_language_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return the folder of a language model, beside which is its import."""
    folder = tmp_path_factory.mktemp("language") / "model"
    random_language_model.write_model(folder, "llama3")
    config = config_file.get_config(str(folder))
    config.data.sequence_length = 64
    import_run.import_language_model(config.lock(), epath.Path(folder.parent / "imported"))
    return folder


def shrink(config, tmp_path):
    """Return the configuration of two steps on two documents."""
    config.source.path = str(examples.write_jsonl(tmp_path / "documents"))
    config.data.dir = str(tmp_path / "data")
    config.steps, config.batch_size, config.optimizer.warmup_steps = 2, 8, 1
    config.evaluation.every = config.checkpoint.every = 2
    config.choose, config.evaluation.suite = (), ""
    config.evaluation.loss_documents = 0
    return config.lock()


def init_state(system):
    with sharding.mesh_context(system.mesh):
        return system.initialize_from(train_state.init_sharded(system))


def test_an_import_writes_text(folder):
    imported = folder.parent / "imported"
    names = {path.name for path in imported.iterdir()}
    assert names == {"config.json", "tokenizer.json", "weights.safetensors"}
    model = of.load(imported)
    (document,) = model.generate("The capital <text>", temperature=0.0)
    assert document.text.startswith("The capital")
    assert len(document.text) > len("The capital")


def test_each_id_has_its_row(folder):
    imported = epath.Path(folder.parent / "imported")
    system = system_lib.system(workdir.load_config(imported), imported, "sample")
    rows = np.asarray(export.load_ema_params(imported, system.abstract_state.ema)["rows"])
    values = random_language_model.config("llama3")
    embedding = random_language_model.random_tensors(values)["model.embed_tokens.weight"]
    text = system.layout.vocab
    assert isinstance(text, PretrainedVocab)
    np.testing.assert_array_equal(rows[text.text.start : text.text.stop],
                                  embedding[text.pretrained_ids])  # fmt: skip
    np.testing.assert_array_equal(rows[vocab.BOS], embedding[values["bos_token_id"]])
    np.testing.assert_array_equal(rows[vocab.END], embedding[values["eos_token_id"]])
    mean = embedding[text.pretrained_ids].mean(axis=0)
    for index in (vocab.PAD, vocab.IMAGE, vocab.MASK, vocab.UNKNOWN, len(rows) - 1):
        np.testing.assert_allclose(rows[index], mean, atol=1e-6)


@pytest.mark.parametrize("start", ["model", "imported"])
def test_lmfusion_starts_from_both_kinds_of_folder(folder, start, tmp_path):
    """Check that training changes only the image tower, which starts as a copy of the text's."""
    config = config_file.get_config(f"{folder.parent / start},lmfusion")
    config = shrink(config.unlock(), tmp_path)
    run = epath.Path(tmp_path / "run")
    system = runs.prepare_system(run, config)
    assert isinstance(system.layout.vocab, PretrainedVocab)
    assert (run / workdir.PRETRAINED_TOKENIZER).exists()
    blocks = init_state(system).params["backbone"]["blocks"]
    jax.tree.map(np.testing.assert_array_equal, blocks["text"], blocks["image"])
    loop.run(system, run)
    trained = export.load_ema_params(run, system.abstract_state.ema)
    after = trained["backbone"]["blocks"]
    jax.tree.map(np.testing.assert_array_equal, after["text"], blocks["text"])
    changed = [np.any(a != b) for a, b in zip(*map(jax.tree.leaves, (after["image"],
               blocks["image"])), strict=True)]  # fmt: skip
    assert all(changed)


def test_other_networks_and_paradigms_are_refused(folder, tmp_path):
    config = config_file.get_config(str(folder))
    config.model.rope_theta = 10_000.0
    with pytest.raises(UserError, match=r"model\.rope_theta=10000\.0: .* has 500\.0\. Set it"):
        init_from.validate(config, epath.Path(tmp_path))
    config = config_file.get_config(str(folder))
    config.paradigm.name = "transfusion"
    with pytest.raises(UserError, match=r"paradigm\.name='transfusion': .* is a language model"):
        init_from.validate(config, epath.Path(tmp_path))
    config.init_from = str(folder.parent / "imported")
    with pytest.raises(UserError, match="not a language model in Hugging Face's layout"):
        import_run.import_language_model(config, epath.Path(tmp_path))


def test_a_model_that_was_not_imported_cannot_be_loaded(folder):
    with pytest.raises(UserError, match=r"Hugging Face's layout\. Convert a language model with"):
        of.load(folder)


def test_a_tokenizer_of_another_model_is_refused(folder, tmp_path):
    random_language_model.write_model(tmp_path / "model", "llama", vocab_size=300)
    config = config_file.get_config(str(tmp_path / "model")).lock()
    with pytest.raises(UserError, match=r"vocab_size=300: tokenizer\.json has ids up to"):
        import_run.import_language_model(config, epath.Path(tmp_path / "imported"))


@pytest.mark.parametrize("start", ["", "folder,oneflow"])
def test_the_configuration_needs_a_folder(start):
    with pytest.raises(UserError, match=r"Write --config=language_model:FOLDER"):
        config_file.get_config(start)
