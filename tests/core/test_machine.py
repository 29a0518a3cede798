import json
import os

import torch

from selfdistill.core.machine import describe_machine, environment, num_cores, processor_name


def test_the_environment_is_json_and_names_this_machine():
    facts = environment()
    assert json.loads(json.dumps(facts)) == facts
    assert torch.__version__.startswith(facts["packages"]["torch"])
    assert facts["cores"] == os.cpu_count()
    assert facts["processor"] == processor_name()


def test_threads_are_part_of_the_processor():
    count = torch.get_num_threads()
    assert describe_machine().startswith(f"{processor_name()}, {count} thread")
    assert describe_machine("mps") == "mps"


def test_number_of_cores():
    assert 1 <= num_cores() <= os.cpu_count()
