"""Runners of Apache Beam by name, and their options from the command line."""

import importlib.util
import re
import shutil
from collections.abc import Sequence
from typing import TYPE_CHECKING

from oneflow_jax.errors import UserError
from oneflow_jax.runtime import storage

if TYPE_CHECKING:
    from apache_beam.options.pipeline_options import PipelineOptions

DIRECT, DATAFLOW, FLINK, SPARK = "DirectRunner", "DataflowRunner", "FlinkRunner", "SparkRunner"
NAMES = (DIRECT, DATAFLOW, FLINK, SPARK)

_OPTION = re.compile(r"[a-z]\w*(?:=.*)?", re.DOTALL)
_WITHOUT_JAVA = ("job_endpoint", "flink_submit_uber_jar", "spark_submit_uber_jar")
"""Options with which Beam starts no job server of its own, which is a Java program."""


def make_options(runner: str, options: Sequence[str], num_workers: int) -> "PipelineOptions":
    """Return Beam's options for a runner.

    Args:
        runner: one of `NAMES`.
        options: options of the runner, each as NAME=VALUE, or as NAME for an option without value.
        num_workers: number of processes of the DirectRunner, unless `options` has another number.

    Raises:
        UserError: Beam or a program that the runner needs is not installed, or an option is
            missing, malformed or unknown.
    """
    _check_installed(runner, options)
    from apache_beam.options.pipeline_options import PipelineOptions

    for option in options:
        if not _OPTION.fullmatch(option):
            raise UserError(
                f"--runner_option={option}: not an option. Give NAME=VALUE, as in "
                "--runner_option=region=europe-west4."
            )
    defaults = [f"--runner={runner}"]
    if runner == DIRECT:
        mode = "multi_processing" if num_workers > 1 else "in_memory"
        defaults += [f"--direct_num_workers={num_workers}", f"--direct_running_mode={mode}"]
    flags = [*defaults, *(f"--{option}" for option in options)]
    try:
        parsed = PipelineOptions(flags)
        known = parsed.get_all_options()
        every = parsed.get_all_options(retain_unknown_options=True)
    except SystemExit as error:  # argparse has printed what is wrong with a value.
        raise UserError(
            f"--runner_option={','.join(options)}: Beam does not accept a value; its message is "
            "above. Change the value."
        ) from error
    if runner == DATAFLOW and not storage.is_remote(known.get("temp_location") or ""):
        raise UserError(
            f"--runner={runner}: its workers share no disk. Give a folder of a bucket, as in "
            "--runner_option=temp_location=gs://BUCKET/FOLDER."
        )
    unknown = sorted(every.keys() - known.keys())
    if unknown and runner in (DIRECT, DATAFLOW):  # Flink's and Spark's job servers have more.
        raise UserError(
            f"--runner_option={unknown[0]}: {runner} has no such option. See the pipeline options "
            "of Apache Beam."
        )
    return parsed


def _check_installed(runner: str, options: Sequence[str]) -> None:
    if importlib.util.find_spec("apache_beam") is None:
        raise UserError(
            f"--runner={runner}: Apache Beam is not installed. Run pip install -r "
            "requirements-beam.txt, or leave out --runner."
        )
    if runner == DATAFLOW:
        try:
            importlib.import_module("apache_beam.runners.dataflow.internal.apiclient")
        except ImportError as error:
            raise UserError(
                f"--runner={runner}: the packages of Google Cloud are not installed ({error}). Run "
                "pip install 'apache-beam[gcp]'."
            ) from error
    names = {option.partition("=")[0] for option in options}
    if runner in (FLINK, SPARK) and names.isdisjoint(_WITHOUT_JAVA) and not shutil.which("java"):
        raise UserError(
            f"--runner={runner}: Beam starts a job server, which needs Java, and there is no "
            "program java. Install Java 11 or newer, or give the address of a job server as "
            "--runner_option=job_endpoint=HOST:PORT."
        )
