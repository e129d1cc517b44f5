"""A trial in TensorBoard's HParams: what was searched, how it ended, and which of its curves are its scores."""

import time
from typing import Any

import optuna
from google.protobuf.message import DecodeError
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState
from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.compat.tensorflow_stub.errors import DataLossError
from tensorboard.plugins.hparams import metadata
from tensorboard.plugins.hparams.api_pb2 import (
    DATA_TYPE_BOOL,
    DATA_TYPE_FLOAT64,
    DATA_TYPE_STRING,
    STATUS_FAILURE,
    STATUS_SUCCESS,
    Experiment,
    HParamInfo,
    MetricInfo,
    MetricName,
)
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionEndInfo, SessionStartInfo
from tensorboard.summary.writer.record_writer import RecordWriter

from fsr.files import atomic_file
from fsr.run import Run
from fsr.score_names import MAIN_SCORES
from fsr.setting_text import setting_text

# Sorts behind the run's own files, which TensorBoard reads in the order of their names.
FILE = "events.out.tfevents.hparams"
KINDS = {
    bool: (DATA_TYPE_BOOL, "bool_value"),
    float: (DATA_TYPE_FLOAT64, "number_value"),
    str: (DATA_TYPE_STRING, "string_value"),
}
ENDS = tuple(state.name.lower() for state in (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL))


def write_hparams(run: Run, trial: optuna.Trial, seed: int, state: TrialState) -> None:
    """Write the trial's events file, in the place of one that was written before.

    The values of the metrics are not in it: TensorBoard takes the last ones that the run itself recorded.
    """
    values = {name: plain(value, trial.distributions[name]) for name, value in trial.params.items()}
    values |= {"seed": float(seed), "state": state.name.lower()}
    infos = [_info(name, value, trial.distributions.get(name)) for name, value in values.items()]
    metrics = [MetricInfo(name=MetricName(tag=tag)) for tag in MAIN_SCORES]
    began = trial.datetime_start.timestamp() if trial.datetime_start else 0.0
    start = SessionStartInfo(start_time_secs=began)
    for name, value in values.items():
        setattr(start.hparams[name], KINDS[type(value)][1], value)
    status = STATUS_FAILURE if state == TrialState.FAIL else STATUS_SUCCESS
    end = SessionEndInfo(status=status, end_time_secs=max(began, time.time()))  # another node's clock may be ahead
    # Every trial has the study's description, because the study has no run of its own; TensorBoard takes any of them.
    contents = {
        metadata.EXPERIMENT_TAG: HParamsPluginData(experiment=Experiment(hparam_infos=infos, metric_infos=metrics)),
        metadata.SESSION_START_INFO_TAG: HParamsPluginData(session_start_info=start),
        metadata.SESSION_END_INFO_TAG: HParamsPluginData(session_end_info=end),
    }
    # Not TensorBoard's EventFileWriter, whose thread would keep a full disk to itself.
    with atomic_file(run.folder / FILE) as file:
        records = RecordWriter(file)
        records.write(Event(wall_time=time.time(), file_version="brain.Event:2").SerializeToString())
        for tag, content in contents.items():
            described = metadata.create_summary_metadata(content)
            value = Summary.Value(tag=tag, metadata=described, tensor=metadata.NULL_TENSOR)
            records.write(Event(wall_time=time.time(), summary=Summary(value=[value])).SerializeToString())


def read_hparams(run: Run) -> dict[str, bool | float | str]:
    """What `write_hparams` wrote of a trial: its parameters, `seed` and `state`; empty where there is no such file, or
    a damaged one."""
    file = run.folder / FILE
    found: dict[str, bool | float | str] = {}
    if not file.is_file():
        return found
    try:
        for event in RawEventFileLoader(str(file)).Load():
            for value in Event.FromString(event).summary.value:
                content = value.metadata.plugin_data.content
                if value.tag == metadata.SESSION_START_INFO_TAG and content:
                    values = HParamsPluginData.FromString(content).session_start_info.hparams
                    found |= {name: getattr(one, one.WhichOneof("kind")) for name, one in values.items()}
    except (
        DecodeError,
        DataLossError,
        ValueError,
        TypeError,
    ):  # of TensorBoard's records; others know less, but enough
        return {}
    return found


def plain(value: Any, searched: BaseDistribution) -> bool | float | str:
    """A value as HParams knows it, all of a parameter of one type: only numbers have an axis of their own."""
    values = searched.choices if isinstance(searched, CategoricalDistribution) else (value,)
    if all(isinstance(one, bool) for one in values):
        return bool(value)
    if all(isinstance(one, int | float) and not isinstance(one, bool) for one in values):
        return float(value)
    return setting_text(value)


def _info(name: str, value: bool | float | str, searched: BaseDistribution | None) -> HParamInfo:
    """Type of a parameter and, where it is known, what it may be."""
    info = HParamInfo(name=name, type=KINDS[type(value)][0])
    if isinstance(searched, CategoricalDistribution):
        info.domain_discrete.extend([plain(choice, searched) for choice in searched.choices])
    elif isinstance(searched, FloatDistribution | IntDistribution):
        info.domain_interval.min_value, info.domain_interval.max_value = searched.low, searched.high
    elif name == "state":
        info.domain_discrete.extend(ENDS)
    return info
