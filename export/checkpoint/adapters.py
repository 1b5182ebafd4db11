"""What a LoRA file does to the weights of a network: names converted by diffusers, layers and arithmetic by peft.

The layers that a file names are made by peft on an empty copy of the network that diffusers' pipelines have, in the memory of the file's
factors alone. A weight is merged where it is fetched, so what is served is one graph with one set of weights, at no cost per step.
Every tensor of a file must arrive somewhere: what the converters leave out is an error that names it. Knows nothing of architectures;
which network stands for which of ours is given (`Part`).
"""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from faceclip_serving.contract.variants.variant import Variant

from .deferred import Fetch, defer, fetch_of, is_deferred, placeholder
from .lora import DOWN, MAGNITUDE, UP, Contents, Layer, Lora, LoraError, factor_of, read, some

_ADAPTER = "fused"
"""peft's name for the adapter."""
_PLAIN_PEFT = "base_model.model."
"""What peft writes before a layer's name if it was given a network alone."""
_LONGEST = 400
"""Characters of a library's error that are told."""
_KEEP_THE_WEIGHTS = (True, False, None, "gaussian", "orthogonal", "eva")
"""Ways to begin a training that leave the network's own weights as they are."""
_CANNOT_CONVERT = (
    ValueError,
    KeyError,
    IndexError,
    TypeError,
    AttributeError,
    AssertionError,
    RuntimeError,
    NotImplementedError,
)


@dataclass(frozen=True)
class Place:
    """Where a layer's matrix lies in a network of ours."""

    tensor: str
    """Name in the state dict."""
    part: tuple[int, int] = (0, 1)
    """(which, of how many) equal parts of its rows: query, key and value may lie in one tensor."""


@dataclass(frozen=True)
class Part:
    """A network of a diffusers pipeline whose LoRAs change a component of ours."""

    name: str
    """As the pipeline calls it: `unet`, `transformer`, `text_encoder`, `text_encoder_2`."""
    network: Callable[[Variant], nn.Module]
    """Its matrices, with the names and shapes that they have there. Called for the meta device."""
    place: Callable[[Variant, str], Place]
    """The variant and a layer's name there -> where we have it."""


@dataclass(frozen=True)
class Family:
    """How the files of a family of models are read."""

    converter: Callable[[], Any]
    """-> the class of diffusers whose `lora_state_dict` knows the spellings of the family's files."""
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class _Change:
    """A layer of a file, arrived at a layer of a network."""

    part: str
    layer: str
    kind: str
    factors: dict[str, Tensor]


Adapters = dict[str, dict[str, Any]]
"""Part -> layer -> peft's layer, which merges into its base."""


def adapters(lora: Lora, family: Family, variant: Variant) -> Adapters:
    """What a file changes of the family's networks. Raises `LoraError` unless all of it is applied."""
    contents = read(lora)
    if not family.parts:
        raise LoraError(f"{lora.path.name}: variant '{variant.name}' takes no LoRA")
    networks = {part.name: _empty(part, variant) for part in family.parts}
    changes = _arrived(lora, contents, family, variant, networks)
    twice = [place for place, times in Counter((change.part, change.layer) for change in changes).items() if times > 1]
    if twice:
        raise LoraError(f"{lora.path.name}: {some(map('.'.join, twice))}: changed by two layers of the file; expected one")
    found: Adapters = {}
    for part in family.parts:
        here = [change for change in changes if change.part == part.name]
        for kind in sorted({_peft_kind(change) for change in here}):
            chosen = {change.layer: change.factors for change in here if _peft_kind(change) == kind}
            settings = _settings_of(lora, contents, part.name)
            network = networks.pop(part.name, None) or _empty(part, variant)  # each kind needs its own
            found.setdefault(part.name, {}).update(_loaded(lora, kind, network, chosen, settings))
    return found


def fuse(module: nn.Module, variant: Variant, parts: Iterable[Part], found: Adapters) -> int:
    """Merges adapters into the module's weights, in place; how many layers changed. Deferred weights are merged when fetched."""
    changed = 0
    for part in parts:
        for name, layer in found.get(part.name, {}).items():
            place = part.place(variant, name)
            parameter = module.get_parameter(place.tensor)
            which, of = place.part
            rows = parameter.shape[0] // of
            fused = partial(
                _merged_rows, fetched(parameter), slice(which * rows, (which + 1) * rows), layer, f"{part.name}.{name}"
            )
            if is_deferred(parameter):
                defer(parameter, fused)
            else:
                parameter.data = fused()
            changed += 1
    return changed


def fetched(parameter: Tensor) -> Fetch:
    """What makes a parameter's values, deferred or not."""
    return fetch_of(parameter) if is_deferred(parameter) else partial(torch.clone, parameter.detach())


def _merged_rows(fetch: Fetch, rows: slice, layer: Any, name: str) -> Tensor:
    """A weight with some of its rows changed as `layer` says, FP32."""
    weight = fetch().float().clone()
    base = layer.get_base_layer()
    empty = base.weight
    try:
        base.weight = nn.Parameter(weight[rows].clone(), requires_grad=False)
        with torch.no_grad():
            layer.merge(safe_merge=True)
        weight[rows] = base.weight
    except ValueError as error:
        raise LoraError(f"'{name}': its weight is not finite with the LoRA in it") from error
    finally:
        base.weight = empty
        layer.merged_adapters.clear()
    return weight


def _empty(part: Part, variant: Variant) -> nn.Module:
    """The part's network in the memory of next to nothing."""
    with torch.device("meta"):
        network = part.network(variant).requires_grad_(False)
    for layer in network.modules():
        for name, tensor in list(layer.named_parameters(recurse=False)):
            setattr(layer, name, nn.Parameter(placeholder(tensor.shape), requires_grad=False))
    return network


# ------------------------------------------------------------------------------------------------------------------ names
class _Traced(Tensor):
    """A tensor that knows which layers of a file it was made of."""

    layers: frozenset[str] = frozenset()

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = super().__torch_function__(func, types, args, kwargs or {})  # type: ignore[no-untyped-call]
        layers = frozenset[str]().union(*(each.layers for each in tree_leaves((args, kwargs)) if isinstance(each, _Traced)))
        for each in tree_leaves(result):
            if isinstance(each, _Traced):
                each.layers = each.layers | layers
        return result


def _traced(tensor: Tensor, layer: str) -> _Traced:
    found = tensor.as_subclass(_Traced)
    found.layers = frozenset((layer,))
    return found


def _arrived(
    lora: Lora, contents: Contents, family: Family, variant: Variant, networks: Mapping[str, nn.Module]
) -> list[_Change]:
    """Every layer of the file, at the layers of the networks that it means. Raises `LoraError` if one means none."""
    layers = list(contents.layers.values())
    plain = {layer.name: _named_here(lora, layer, networks) for layer in layers}
    if all(plain.values()):  # named as the networks name themselves: nothing to convert
        return [_Change(*place, layer.kind, _peft_factors(lora, layer)) for layer in layers if (place := plain[layer.name])]
    converted: dict[str, dict[tuple[str | None, str], dict[str, _Traced]]] = {}
    for target, tensors in _converted(lora, layers, family, networks).items():
        for name in frozenset[str]().union(*(each.layers for each in tensors.values())):
            converted.setdefault(name, {})[target] = tensors
    changes: list[_Change] = []
    strange: list[str] = []
    for layer in layers:
        made = converted.get(layer.name, {})
        if not made and all(not tensor.any() for tensor in layer.factors.values()):
            continue  # nothing but zeros, which the converters leave out
        if not made or any(part is None or tensors.keys() != {DOWN, UP} for (part, _), tensors in made.items()):
            strange.extend(layer.keys.values())
            continue
        if layer.kind == "lora" and layer.factors.keys() == {DOWN, UP}:
            factors = [
                {side: each.as_subclass(Tensor).contiguous() for side, each in tensors.items()} for tensors in made.values()
            ]
        else:
            factors = [_unchanged(lora, layer, list(made.values()))]
        changes += [_Change(str(part), name, layer.kind, each) for (part, name), each in zip(made, factors, strict=True)]
    if strange:
        known = ", ".join(networks)
        raise LoraError(
            f"{lora.path.name}: {some(strange)}: no such layer in the networks of '{variant.name}' ({known}); the file was made for another"
            " model, or is in a form that diffusers does not read"
        )
    if not changes:
        raise LoraError(f"{lora.path.name}: holds nothing but zeros, so nothing would change")
    return changes


def _named_here(lora: Lora, layer: Layer, networks: Mapping[str, nn.Module]) -> tuple[str, str] | None:
    """(part, layer) if the file names a layer as the network itself does, with or without the part's name before it."""
    name = layer.name.removeprefix(_PLAIN_PEFT)
    for part, network in networks.items():
        inner = name.removeprefix(f"{part}.")
        if inner != name and _matrix(network, inner.removeprefix(_PLAIN_PEFT)) is not None:
            return part, inner.removeprefix(_PLAIN_PEFT)
    found = [part for part, network in networks.items() if _matrix(network, name) is not None]
    if len(found) > 1:
        found = [part for part in found if _fits(layer, _matrix(networks[part], name))]
    if len(found) > 1:
        raise LoraError(
            f"{lora.path.name}: {some(layer.keys.values())}: may be of {' or '.join(found)}; expected one of these before the layers' names"
        )
    return (found[0], name) if found else None


def _matrix(network: nn.Module, name: str) -> nn.Module | None:
    """A layer that a LoRA can change, by its name."""
    try:
        found = network.get_submodule(name)
    except AttributeError:
        return None
    return found if isinstance(found, nn.Linear | nn.Conv2d) else None


def _fits(layer: Layer, matrix: nn.Module | None) -> bool:
    weight: Any = getattr(matrix, "weight", None)
    if layer.kind != "lora" or weight is None:
        return False
    return bool(weight.shape[:2] == (layer.factors[UP].shape[0], layer.factors[DOWN].shape[1]))


def _converted(
    lora: Lora, layers: Iterable[Layer], family: Family, networks: Mapping[str, nn.Module]
) -> dict[tuple[str | None, str], dict[str, _Traced]]:
    """(part, layer) -> the factors that diffusers' converter makes of the file's; part None: of none of the networks.

    The factors of a LoHa or LoKr, which the converter does not know, are stood for by those of a LoRA of rank 1.
    """
    state: dict[str, Tensor] = {}
    for layer in layers:
        down, up = (layer.keys.get(side, f"{layer.name}.lora_{end}.weight") for side, end in ((DOWN, "down"), (UP, "up")))
        for key, side in ((down, DOWN), (up, UP)):
            state[key] = _traced(layer.factors.get(side, torch.ones(1, 1)), layer.name)
        if down.endswith(".lora_down.weight"):  # alpha is in the factors already: the strength must be 1
            state[f"{layer.name}.alpha"] = torch.tensor(float(state[down].shape[0]))
    try:
        unet = networks.get("unet")
        found = family.converter().lora_state_dict(state, unet_config=None if unet is None else unet.config)
        tensors = found[0] if isinstance(found, tuple) else found
    except _CANNOT_CONVERT as error:
        raise LoraError(
            f"{lora.path.name}: diffusers cannot read the names of its layers ({_in_short(error)}); the file was made for another model, or"
            " is in a form that diffusers does not read"
        ) from error
    placed: dict[tuple[str | None, str], dict[str, _Traced]] = {}
    for key, tensor in tensors.items():
        part, name = _place(key, networks)
        parsed = factor_of(name)
        layer_name, factor = (name, "") if parsed is None else parsed
        known = part is not None and _matrix(networks[part], layer_name) is not None
        placed.setdefault((part if known else None, layer_name), {})[factor] = tensor
    return placed


def _place(key: str, networks: Mapping[str, nn.Module]) -> tuple[str | None, str]:
    """A converted name -> the part that it is of, and the name in peft's spelling. Some names come without their part."""
    named = [part for part in networks if key.startswith(f"{part}.")]
    for part in named or networks:
        name = _in_peft(part, key.removeprefix(f"{part}."))
        parsed = factor_of(name)
        if parsed is not None and _matrix(networks[part], parsed[0]) is not None:
            return part, name
    return None, key


def _in_peft(part: str, name: str) -> str:
    """diffusers' older spellings in peft's: `attn1.processor.to_q_lora.down.weight` -> `attn1.to_q.lora_A.weight`."""
    from diffusers.utils.state_dict_utils import StateDictType, convert_state_dict_to_peft, convert_unet_state_dict_to_peft

    if part.startswith("text_encoder"):
        (found,) = convert_state_dict_to_peft({name: None}, original_type=StateDictType.DIFFUSERS_OLD)
    else:
        (found,) = convert_unet_state_dict_to_peft({name: None})
    return str(found)


# --------------------------------------------------------------------------------------------------------------- factors
def _unchanged(lora: Lora, layer: Layer, made: list[dict[str, _Traced]]) -> dict[str, Tensor]:
    """The layer's own factors, if the converter did but rename it. It knows LoRAs: a cut of another kind it would not do."""
    given = {side: layer.factors.get(side, torch.ones(1, 1)) for side in (DOWN, UP)}
    if len(made) != 1 or any(not torch.equal(made[0][side].as_subclass(Tensor), tensor) for side, tensor in given.items()):
        raise LoraError(
            f"{lora.path.name}: {some(layer.keys.values())}: this layer is cut or turned in diffusers' network, which can be done to the"
            f" factors of a LoRA but not to those of a {'DoRA' if layer.kind == 'lora' else layer.kind}"
        )
    return _peft_factors(lora, layer)


def _peft_factors(lora: Lora, layer: Layer) -> dict[str, Tensor]:
    """The layer's factors by peft's names. kohya's `dora_scale` has one value for each output, or for each input in another kind."""
    factors = dict(layer.factors)
    scale = factors.pop("dora_scale", None)
    if scale is None:
        return factors
    outputs = factors[UP].shape[0]
    if scale.numel() != outputs or scale.shape[0] != outputs:
        raise LoraError(
            f"{lora.path.name}: '{layer.keys['dora_scale']}': expected a DoRA's magnitude for each of {outputs} outputs, got the shape"
            f" {list(scale.shape)}; peft knows no magnitudes of inputs"
        )
    convolution = factors[DOWN].ndim == 4
    return {**factors, MAGNITUDE: scale.reshape((1, outputs, 1, 1) if convolution else (outputs,))}


def _peft_kind(change: _Change) -> str:
    """Layers of a kind are loaded together: they share one configuration."""
    if change.kind == "lora":
        return "dora" if MAGNITUDE in change.factors else "lora"
    return f"{change.kind} of convolutions" if {"hada_t1", "lokr_t2"} & change.factors.keys() else change.kind


def _settings_of(lora: Lora, contents: Contents, part: str) -> dict[str, Any]:
    """What the file says of all layers of a part."""
    if lora.config is not None and "peft_type" in contents.settings:
        return dict(contents.settings)
    return {key.removeprefix(f"{part}."): value for key, value in contents.settings.items() if key.startswith(f"{part}.")}


def _loaded(
    lora: Lora, kind: str, network: nn.Module, changes: Mapping[str, dict[str, Tensor]], settings: dict[str, Any]
) -> dict[str, Any]:
    """Layer -> peft's layer with the factors of the file and the strength that is wanted. Raises `LoraError`."""
    try:
        from peft import inject_adapter_in_model, set_peft_model_state_dict
        from peft.tuners.tuners_utils import BaseTunerLayer
    except ImportError as error:
        raise LoraError("--lora: needs peft, which is not here: pip install -r requirements.txt") from error
    state = {f"{layer}.{factor}": tensor for layer, factors in changes.items() for factor, tensor in factors.items()}
    try:
        config = _config(lora, kind, changes, state, settings)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that layers come from the file and not from its settings
            inject_adapter_in_model(config, network, adapter_name=_ADAPTER, low_cpu_mem_usage=True, state_dict=state)
            result = set_peft_model_state_dict(network, state, _ADAPTER, low_cpu_mem_usage=True)
    except (ValueError, TypeError, KeyError, RuntimeError, AttributeError) as error:
        raise LoraError(f"{lora.path.name}: peft cannot load it as {kind}: {_in_short(error)}") from error
    layers = {name: each for name, each in network.named_modules() if isinstance(each, BaseTunerLayer)}
    missing = [name for name, tensor in network.named_parameters() if tensor.is_meta]
    lost = [*result.unexpected_keys, *missing, *sorted(layers.keys() ^ changes.keys())]
    if lost:
        raise LoraError(f"{lora.path.name}: {some(lost)}: peft has no place or no value for these as {kind}")
    for layer in layers.values():
        layer.scale_layer(lora.scale)
    return layers


def _in_short(error: Exception) -> str:
    """A library's error on one line; some list every tensor."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip() and "Error(s) in loading" not in line]
    text = f"{type(error).__name__}: {' '.join(lines)}"
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def _config(
    lora: Lora, kind: str, changes: Mapping[str, dict[str, Tensor]], state: Mapping[str, Tensor], settings: dict[str, Any]
) -> Any:
    """peft's configuration: that of the file, or one that follows from the shapes, with the strength 1."""
    from diffusers.utils.peft_utils import _create_lokr_config
    from peft import LoHaConfig, LoKrConfig, LoraConfig

    kind = kind.split()[0]
    if settings:
        method = {"loha": LoHaConfig, "lokr": LoKrConfig}.get(kind, LoraConfig)
        known = {field.name for field in fields(method)}
        foreign = [name for name, value in settings.items() if name not in known and value]
        if foreign:
            raise LoraError(f"{lora.path.name}: {some(foreign)}: a setting that {method.__name__} of this peft does not know")
        begun = settings.get("init_lora_weights")
        if begun not in _KEEP_THE_WEIGHTS:
            raise LoraError(
                f"{lora.path.name}: was trained from weights that '{begun}' had changed; convert it to a plain LoRA first (peft's"
                " save_pretrained with path_initial_model_for_weight_conversion)"
            )
        kept = {name: value for name, value in settings.items() if name in known - {"modules_to_save", "target_modules"}}
        return method(**kept, target_modules=list(changes))
    if kind == "lokr":
        return _create_lokr_config(state, None)
    rank_axis = {"lora": UP, "dora": UP, "loha": "hada_w1_b"}[kind]
    ranks = {layer: factors[rank_axis].shape[1 if rank_axis == UP else 0] for layer, factors in changes.items()}
    usual = Counter(ranks.values()).most_common(1)[0][0]
    others = {
        "^(" + "|".join(re.escape(layer) for layer, rank in ranks.items() if rank == other) + ")": other
        for other in set(ranks.values()) - {usual}
    }
    common = {"r": usual, "rank_pattern": others, "alpha_pattern": others, "target_modules": list(changes)}
    if kind == "loha":
        tucker = any("hada_t1" in factors for factors in changes.values())
        return LoHaConfig(alpha=usual, use_effective_conv2d=tucker, **common)
    return LoraConfig(lora_alpha=usual, use_dora=kind == "dora", **common)
