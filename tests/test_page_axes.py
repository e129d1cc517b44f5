"""Axes of the study page's plots: names have room, and labels are the numbers."""

from analysis.page.chart import axis_of
from analysis.page.parallel import least_width


def test_long_names_beside_each_other_take_more_room_than_short_ones():
    assert least_width(["w_aff", "w_patch", "segmentation mIoU"]) < least_width(
        ["mask_ratio", "1-momentum", "segmentation mIoU"]
    )
    assert least_width(["a" * 60, "b" * 60]) < 500  # names are cut, so the plot does not grow with them


def test_an_axis_whose_values_are_all_equal_shows_their_number():
    assert axis_of("mean", "segmentation mIoU")["axis"]["format"] == ".5~g"  # by itself Vega writes 0 for .103
