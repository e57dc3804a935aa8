"""What operators and tensors of a float file go by: whole names, layers, and paths inside of layers.

The converter names a result after scopes and an operation, ``net/head/Relu``, and after several where it fused
operations, joined by ``;``. Users may say ``head``, ``head/Relu``, ``net/head/Relu`` or the whole name.
"""

import re
from collections.abc import Collection, Iterable, Sequence

from tfptq.config import LayerOverride
from tfptq.float_file.float_file import FloatFile
from tfptq.float_file.matching import layers_in_names

_DECORATION = re.compile(r"^(?:serving_default_)?(.*?)(?::\d+)?$")
_NUMBER = re.compile(r"_\d+$")


class OperatorNames:
    """Looks tensors up by the names that they go by.

    Args:
        float_file: the file.
        layers: names of the layers of its Keras model.
        outputs: names of the layers whose results the model returns, in its order.
    """

    def __init__(self, float_file: FloatFile, layers: Collection[str] = (), outputs: Sequence[str] = ()):
        model = float_file.model
        inputs = {index: name for name, index in float_file.inputs.items()}
        results = [index for operator in model.operators for index in operator.outputs]
        owners = {use.output: kernel.id.owner for kernel in float_file.kernels for use in kernel.uses}
        named = layers_in_names([model.name(index) for index in results], layers)
        self._file, self._layers = float_file, layers
        self._names: dict[int, frozenset[str]] = {index: frozenset({name}) for index, name in inputs.items()}
        #: The layers that a tensor is of.
        self._owners: dict[int, frozenset[str]] = dict(self._names)
        for index, known in zip(results, named, strict=True):
            own = {*known, *((owners[index],) if index in owners else ())}
            self._names[index] = frozenset({*_paths(model.name(index)), *own})
            self._owners[index] = frozenset(own)
        signature = next(iter(model.root.signatureDefs or []), None)
        of_layers = {f"output_{number}": name for number, name in enumerate(outputs)}
        for entry in () if signature is None else signature.outputs:  # the file calls them by no layer
            index, name = entry.tensorIndex, entry.name.decode()
            given = {name, of_layers.get(name, name)}
            self._names[index] = self._names.get(index, frozenset()) | given
            self._owners[index] = self._owners.get(index, frozenset()) | given

    def tensors(self, item: LayerOverride) -> set[int]:
        """The inputs and results that a pattern covers; those of the layer, where it is the name of one.

        The converter may number scopes so that they look like another layer: ``conv_1`` of the first ``conv``.
        """
        known = self._owners if any(map(item.names, self._layers)) else self._names
        return {index for index, names in known.items() if any(map(item.matches, names))}

    def operators(self, item: LayerOverride) -> set[int]:
        """Positions of the operators with a result that a pattern covers."""
        tensors = self.tensors(item)
        return {at for at, it in enumerate(self._file.model.operators) if tensors.intersection(it.outputs)}

    def behind(self, item: LayerOverride) -> set[int]:
        """Positions of the operators that read, directly or not, what leaves the operators that a pattern covers."""
        model, inside = self._file.model, self.operators(item)
        readers, outputs = model.consumers(), set(model.subgraph.outputs)
        reached = {
            index for index in self.tensors(item) if index in outputs or not inside.issuperset(readers.get(index, ()))
        }
        found: set[int] = set()
        for at, operator in enumerate(model.operators):
            if at not in inside and reached.intersection(operator.inputs):
                found.add(at)
                reached.update(operator.outputs)
        return found

    def examples(self, least: int = 12) -> list[str]:
        """Some of the names, shortest of each tensor first."""
        shortest = (min(names, key=lambda name: (len(name), name)) for names in self._names.values() if names)
        return list(dict.fromkeys(shortest))[:least]


def _paths(name: str) -> Iterable[str]:
    """The whole name, and each operation's path from any of its scopes."""
    yield name
    parts = [_DECORATION.sub(r"\1", part).split("/") for part in name.split(";")]
    # Keras adds a number to each scope.
    for scopes in [*parts, *([*(_NUMBER.sub("", scope) for scope in part[:-1]), part[-1]] for part in parts)]:
        # The operation alone, "Relu", would stand for all of its kind, unless only the model's scope is around it.
        yield from ("/".join(scopes[at:]) for at in range(len(scopes) - (len(scopes) > 2)))
