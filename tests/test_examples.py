"""The examples in docstrings of what people import."""

import doctest
import importlib

import pytest

MODULES = {  # and the names whose docstrings have examples
    "fsr.config": {"TrainConfig"},
    "fsr.crf": {"dense_crf", "dense_crf_stream"},
    "fsr.inference.config": {"InferConfig"},
    "fsr.ops.bilateral": {"bilateral_filter"},
    "launch.study": {"Study"},
}


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_do_what_they_say(name):
    module = importlib.import_module(name)
    tests = [test for test in doctest.DocTestFinder().find(module) if test.examples]
    assert {test.name.removeprefix(f"{name}.") for test in tests} == MODULES[name]
    runner = doctest.DocTestRunner()
    for test in tests:
        runner.run(test)
    assert runner.summarize().failed == 0
