"""Parts of bundles as ONNX models, and refusals that name layer and operation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from foreign import Deciding, Pooled, WithAiry, bundle_of
from made_elsewhere import OnWaves
from onnx import TensorProto, helper
from torch import nn

from duovox.config import TapConfig
from duovox.contracts import ClassifierError
from duovox.exporting.checking import compare, require_same
from duovox.exporting.conversion import _without_double_cosines, to_onnx
from duovox.exporting.parts import classifier_part, guided_step_part
from duovox.exporting.tracing import trace
from duovox.lite.sessions import open_graph
from duovox.voice import Duovox


@pytest.mark.parametrize(("network", "waves"), [(Pooled(), False), (OnWaves(), True)])
def test_a_classifier_made_elsewhere(small_voice: Duovox, network: nn.Module, waves: bool) -> None:
    """It is given the wave, and has its own front end in its graph: what it hears is not what a bridge makes of our mel."""
    part = classifier_part(bundle_of(small_voice.bundle, network, waves=waves))
    difference = compare(part, open_graph(to_onnx(part, network).SerializeToString(), part.inputs, "1.20"))
    require_same(part, difference)
    assert part.inputs == ("wave",) and difference.largest < 1e-5


def test_an_operation_without_a_form_is_named_with_its_layer(small_voice: Duovox) -> None:
    bundle = bundle_of(small_voice.bundle, WithAiry())
    with pytest.raises(
        ClassifierError, match=r"the classifier cannot be exported: its layer network\.odd runs the operation aten::special_airy_ai"
    ):
        to_onnx(classifier_part(bundle), bundle.model.classifier.network)


def test_ways_that_depend_on_the_input_are_refused(small_voice: Duovox) -> None:
    bundle = bundle_of(small_voice.bundle, Deciding())
    with pytest.raises(ClassifierError, match="depend on its input"):
        to_onnx(classifier_part(bundle), bundle.model.classifier.network)


def test_a_guide_behind_a_vocoder_is_refused(small_voice: Duovox) -> None:
    """The gradient of a classifier of waves goes through inverse transforms, which no runtime has."""
    bundle = bundle_of(small_voice.bundle, OnWaves(), waves=True)
    with pytest.raises(
        ClassifierError, match=r"the step cannot be exported: its layer front_end\.vocoder runs the operation aten::_fft_c2r"
    ):
        to_onnx(guided_step_part(bundle), bundle.model.classifier.network)


def test_a_step_on_a_classifier_made_elsewhere(small_voice: Duovox) -> None:
    """Guided at the estimate, with temperatures, through pooled taps and max pooling: traced, for any batch."""
    part = guided_step_part(bundle_of(small_voice.bundle, Pooled(), (TapConfig("body.2", "BCMT"),)))
    graph = trace(part.function, part.draw(0, 2))
    for seed, batch in ((5, 1), (6, 3)):
        inputs = part.draw(seed, batch)
        torch.testing.assert_close(graph(*inputs), part.plain(*inputs), rtol=1e-4, atol=1e-5)


def test_cosines_of_doubles_are_sines() -> None:
    """Those of floats are left alone; the numbers stay what they are."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [5]) for name in "xy")
    names = {"wide": TensorProto.DOUBLE, "turned": TensorProto.DOUBLE, "narrow": TensorProto.FLOAT}
    nodes = [
        helper.make_node("Cast", ["x"], ["wide"], to=TensorProto.DOUBLE),
        helper.make_node("Cos", ["wide"], ["turned"]),
        helper.make_node("Cast", ["turned"], ["narrow"], to=TensorProto.FLOAT),
        helper.make_node("Cos", ["narrow"], ["y"]),
    ]
    between = [helper.make_tensor_value_info(name, kind, [5]) for name, kind in names.items()]
    graph = helper.make_graph(nodes, "cosines", [x], [y], value_info=between)
    model = _without_double_cosines(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10))
    assert [node.op_type for node in model.graph.node] == ["Cast", "Add", "Sin", "Cast", "Cos"]
    values = np.linspace(-7, 7, 5, dtype=np.float32)
    found = open_graph(model.SerializeToString(), ("x",), "1.20")(values)
    np.testing.assert_allclose(found, np.cos(np.cos(values)), rtol=0, atol=1e-6)
