"""Devices: which is chosen, and what it computes in."""

import pytest
import torch

from hcsqc.core.devices import choose_device, device_name, precision_on
from hcsqc.core.errors import InputError

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"amx_bf16": True}, "bfloat16"),
        ({"avx512_bf16": True, "amx_bf16": False}, "bfloat16"),
        ({"avx2": True, "amx_bf16": False, "avx512_bf16": False}, "float32"),
        ({}, "float32"),
    ],
)
def test_auto_is_bfloat16_only_where_the_processor_computes_in_it(
    capabilities, expected, monkeypatch
):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert precision_on(CPU, "auto") == expected
    assert precision_on(CPU, "float32") == "float32"
    assert precision_on(CPU, "bfloat16") == "bfloat16"


def test_a_device_that_is_unknown_or_missing_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == CPU
    with pytest.raises(InputError, match="device is 'tpu', expected auto, cpu or cuda"):
        choose_device("tpu")
    with pytest.raises(InputError, match="torch finds no GPU"):
        choose_device("cuda")


def test_a_processor_is_named_with_its_threads(monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"cpu_name": "Made Up 9"})
    assert device_name(CPU) == f"Made Up 9 CPU, {torch.get_num_threads()} threads"
