"""The names that a model knows: those of its training data, for people who write prompts."""

import collections

import ml_collections

from oneflow_jax.build import custom_data, finetune
from oneflow_jax.data import sources
from oneflow_jax.data.custom import prepare

MAX_DOCUMENTS = 2_000
"""Maximum number of training documents whose texts are counted."""

MAX_CAPTIONS = 300
"""Maximum number of captions of the user's own data that are listed."""

MAX_CHARACTERS = 80
"""Maximum length of a caption; longer texts are no names."""


def list_names(config: ml_collections.ConfigDict) -> tuple[str, ...]:
    """List the names in the training data of a run, without preparing the data.

    The names of a built-in data set are those of its classes, such as "tiger". For the user's own
    data, they are the most frequent captions in the prepared data, the most frequent first. A
    fine-tuned run that also trains on the documents of its start model knows the names of both.

    Returns:
        The names; () if the data set has no list of names, or if its own data is not prepared on
        this machine.
    """
    names = _list_source_names(config)
    if finetune.keeps_data(config):
        names += _list_source_names(finetune.start_data_config(config))
    return tuple(dict.fromkeys(names))


def _list_source_names(config: ml_collections.ConfigDict) -> tuple[str, ...]:
    if custom_data.is_custom(config):
        return _list_captions(config)
    settings = config.source.to_dict()
    return sources.list_names(settings.pop("name"), settings)


def _list_captions(config: ml_collections.ConfigDict) -> tuple[str, ...]:
    prepared = prepare.open_entry(custom_data.make_settings(config), config.data.dir).load_last()
    if prepared is None:
        return ()
    documents = prepare.open_folder(prepared.folder, "train")
    counts = collections.Counter(
        documents[index].text() for index in range(min(len(documents), MAX_DOCUMENTS))
    )
    captions = (caption for caption, _ in counts.most_common() if len(caption) > 0)
    return tuple(caption for caption in captions if len(caption) <= MAX_CHARACTERS)[:MAX_CAPTIONS]
