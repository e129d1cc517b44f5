"""Settings as text: whatever kind of value a study may choose, in every place that shows one."""

import numpy as np
import pandas as pd
import pytest

from analysis.ranking import setting_name
from fsr.setting_text import setting_text, settings_text


@pytest.mark.parametrize(
    "value, text",
    [
        (0.123456, "0.1235"),
        (4.0, "4"),
        (1.5e-7, "1.5e-07"),
        (np.float32(0.25), "0.25"),
        (123456, "123456"),
        (np.int64(7), "7"),
        (True, "True"),
        (np.bool_(False), "False"),
        (None, "None"),
        ("bf16", "bf16"),
        ((0.2, 0.70001), "(0.2, 0.7)"),
        ([1, None], "(1, None)"),
    ],
)
def test_every_kind_of_value_has_a_text(value, text):
    assert setting_text(value) == text


def test_a_setting_is_names_and_values():
    assert settings_text({"mask_ratio": 0.8, "precision": "bf16"}) == "mask_ratio 0.8  precision bf16"
    assert settings_text({}) == ""
    row = pd.Series({"trial": 4, "param/precision": "bf16", "param/use_aa": True, "param/w_aff": 0.75, "param/x": None})
    assert setting_name(row) == "trial 4: precision bf16  use_aa True  w_aff 0.75"
