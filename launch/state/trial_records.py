"""A trial as one record, of the kind by which Optuna's journal makes a trial, and back."""

import hashlib
import json
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from functools import cache, lru_cache
from typing import Any

from optuna.distributions import BaseDistribution, distribution_to_json, json_to_distribution
from optuna.trial import FrozenTrial, TrialState

Record = dict[str, Any]
MINUTE, MICROSECOND = len("2026-11-27T07:12"), len("2026-11-27T07:12:00.000000")  # of a time in text


@cache
def distribution_of(text: str) -> BaseDistribution:
    """The distribution that a record holds as JSON: one object for all trials, as a study has few of them."""
    return json_to_distribution(text)


@cache
def text_of(distribution: BaseDistribution) -> str:
    """A distribution as a record holds it."""
    return distribution_to_json(distribution)


def trial_of(record: Record, number: int, trial_id: int) -> FrozenTrial:
    """The trial that a record makes."""
    distributions = {name: distribution_of(text) for name, text in record.get("distributions", {}).items()}
    params = record.get("params", {})
    return FrozenTrial(
        number=number,
        trial_id=trial_id,
        state=TrialState(record.get("state", TrialState.RUNNING)),
        value=record.get("value"),
        values=record.get("values"),
        datetime_start=local_time(record["datetime_start"]),
        datetime_complete=local_time(record.get("datetime_complete")),
        params={name: distributions[name].to_external_repr(value) for name, value in params.items()},
        distributions=distributions,
        user_attrs=record.get("user_attrs", {}),
        system_attrs=record.get("system_attrs", {}),
        intermediate_values={int(step): value for step, value in record.get("intermediate_values", {}).items()},
    )


def record_of(trial: FrozenTrial) -> Record:
    """Everything that is known of a trial, as the record that makes it."""
    record: Record = {
        "state": int(trial.state),
        "values": trial.values,
        "value": None,
        "datetime_start": universal_time(trial.datetime_start),
        "distributions": {name: text_of(range_) for name, range_ in trial.distributions.items()},
        "params": {name: trial.distributions[name].to_internal_repr(value) for name, value in trial.params.items()},
        "user_attrs": trial.user_attrs,
        "system_attrs": trial.system_attrs,
        "intermediate_values": trial.intermediate_values,
    }
    if trial.datetime_complete is not None:
        record["datetime_complete"] = universal_time(trial.datetime_complete)
    return record


def local_time(text: str | None) -> datetime | None:
    """Optuna's time of a record's: local, without a zone."""
    if text is None:
        return None
    if text[MICROSECOND:] == "+00:00":  # as all records have it
        return datetime.fromisoformat(text[:MICROSECOND]) + offset_of(text[:MINUTE])
    return datetime.fromisoformat(text).astimezone().replace(tzinfo=None)


@lru_cache(1 << 14)
def offset_of(minute: str) -> timedelta:
    """What local time is ahead of UTC in a minute: the system takes long to tell, and no zone changes within one."""
    time = datetime.fromisoformat(minute).replace(tzinfo=timezone.utc)
    return time.astimezone().utcoffset() or timedelta()


def universal_time(time: datetime | None) -> str | None:
    """A record's time of Optuna's."""
    return None if time is None else time.astimezone(timezone.utc).isoformat(timespec="microseconds")


def settings_key(params: Mapping[str, Any]) -> int:
    """64 bits that are the same for parameters that are equal as Python's values are: 1, 1.0 and True are."""
    told = {name: float(value) if isinstance(value, bool | int) else value for name, value in params.items()}
    digest = hashlib.blake2b(json.dumps(told, sort_keys=True, default=str).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)
