"""How a row of the transformers list becomes a model: its configuration filled with small sizes, and its inputs."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from tests.zoo.zoo import Inputs

SMALL: dict[str, Any] = {
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "emb_dim"), 48),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "d_ff", "n_inner", "encoder_ffn_dim", "decoder_ffn_dim"), 80),
    **dict.fromkeys(("num_hidden_layers", "num_layers", "n_layer", "n_layers", "encoder_layers", "decoder_layers"), 2),
    **dict.fromkeys(("num_encoder_layers", "num_decoder_layers"), 2),
    **dict.fromkeys(("num_attention_heads", "num_heads", "n_head", "n_heads"), 4),
    **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 4),
    **dict.fromkeys(("max_position_embeddings", "n_positions"), 64),
    **{"num_key_value_heads": 2, "vocab_size": 120, "use_cache": False},
    **{"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2},
}
"""What a configuration gets for the fields that it has, unless a row says otherwise."""


@dataclass(frozen=True)
class Row:
    """A model class, what its inputs are, and what its configuration needs beside small sizes.

    variant: tells apart rows of one class
    slow:    takes longer than a few seconds
    reason:  why it cannot run at all
    """

    name: str
    inputs: Callable[[], Inputs]
    config: Mapping[str, Any] = field(default_factory=dict)
    variant: str = ""
    family: str = ""
    slow: bool = False
    reason: str = ""

    @property
    def title(self) -> str:
        return f"{self.name}-{self.variant}" if self.variant else self.name

    @property
    def kind(self) -> str:
        """The architecture: the class without its head."""
        return self.family or re.split(r"(LMHead|Text|Vision|Encoder)?(Model$|For[A-Z]|Encoder$)", self.name)[0]

    def build(self) -> torch.nn.Module:
        library = importlib.import_module("transformers")
        model = getattr(library, self.name)
        given = {key: each() if callable(each) else each for key, each in self.config.items()}
        made: torch.nn.Module = model(_configured(model.config_class, given))
        return made


def row(name: str, inputs: Callable[[], Inputs], variant: str = "", *, slow: bool = False, **config: Any) -> Row:
    """A row whose keywords are fields of the configuration."""
    return Row(name, inputs, config, variant, slow=slow)


def _configured(kind: Any, given: dict[str, Any]) -> Any:
    """The configuration with small sizes where the row gives none; a field has one name, whatever its aliases."""
    aliases = getattr(kind, "attribute_map", {})
    taken = {aliases.get(name, name) for name in given} | set(aliases)
    return kind(**{name: SMALL[name] for name in _fields(kind) if name in SMALL and name not in taken}, **given)


def _fields(kind: Any) -> list[str]:
    found = {"use_cache": None, "pad_token_id": None, "bos_token_id": None, "eos_token_id": None}
    for each in kind.__mro__:
        if each.__name__ in {"PretrainedConfig", "PreTrainedConfig", "object"}:
            break
        found.update(dict.fromkeys(getattr(each, "__annotations__", {})))
        if "__init__" in vars(each):
            found.update(dict.fromkeys(inspect.signature(each.__init__).parameters))
    return list(found)


def tokens(length: int = 9, high: int = 100) -> torch.Tensor:
    """Token ids, none of them special."""
    return torch.randint(3, high, (2, length))


def ids(length: int = 9, high: int = 100, **more: Callable[[], torch.Tensor]) -> Callable[[], Inputs]:
    """Token ids, and other inputs by name."""
    return lambda: ((), {"input_ids": tokens(length, high), **{name: make() for name, make in more.items()}})


def pair(length: int = 9, target: int = 7, **more: Callable[[], torch.Tensor]) -> Callable[[], Inputs]:
    """Token ids of an encoder and of its decoder, and other inputs by name."""
    return ids(length, decoder_input_ids=lambda: tokens(target), **more)


def pixels(size: int = 32) -> Callable[[], Inputs]:
    """Images."""
    return numbers(pixel_values=(2, 3, size, size))


def numbers(**shapes: tuple[int, ...]) -> Callable[[], Inputs]:
    """Normally distributed inputs by name and shape."""
    return lambda: ((), {name: torch.randn(shape) for name, shape in shapes.items()})


def heard(**shapes: tuple[int, ...]) -> Callable[[], Inputs]:
    """What an encoder hears, and token ids of its decoder."""
    return lambda: ((), {**numbers(**shapes)()[1], "decoder_input_ids": tokens(5)})
