"""Whether the grid of `passes` reads a model as the model reads itself."""

from typing import Any

import torch
from transformers import PreTrainedModel

from byway.base.errors import UserError
from byway.language.fast.passes import Prefix, forward_one, prepare

TOLERANCE, ROUNDED = 0.05, 0.5
"""Root mean square, in standard deviations of the scores, by which two ways of reading may lie apart in float32 and
with 16 bits. float32 rounds by 1e-5 of one; bfloat16 by 0.01 to 0.1, by tokens and processor. What is read wrongly
lies 1 apart."""
SHORTEST_WINDOW = 256
"""Tokens: a prompt of three long descriptions, and its answer."""


@torch.no_grad()
def require_readable(model: PreTrainedModel) -> None:
    """UserError, with the reason, where the grid would not read a model as it reads itself.

    Hybrids (Qwen3.5, LFM2, Jamba, Mamba) have layers that carry a state from token to token: what two prompts share
    cannot be read once and looked back at. Others bend the scores that come from the last hidden state. Both are
    seen by reading a few tokens in two parts. Call it before the model's attention is routed through the grid.
    """
    name, why = model.config.name_or_path or type(model).__name__, ""
    text: Any = model.config.get_text_config()
    window = getattr(text, "sliding_window", None) if getattr(text, "use_sliding_window", True) else None
    positions = torch.arange(12, device=model.device)
    # From the middle of the vocabulary: at its beginning stand special tokens, where rounding alone moves scores.
    ids = (positions + text.vocab_size // 2)[None]
    expected = model(input_ids=ids, use_cache=False).logits[0, -1].float()
    usual: Any = model.config._attn_implementation  # pyright: ignore[reportPrivateUsage]
    try:
        grid = ids[None]
        valid = torch.ones_like(grid, dtype=torch.bool)
        prepare(model)
        _, first = forward_one(model, grid[..., :8], positions[:8], valid[..., :8], [])
        if len(first.keys) < text.num_hidden_layers:
            why = f"{text.num_hidden_layers - len(first.keys)} of its {text.num_hidden_layers} layers do not attend"
        else:
            hidden, _ = forward_one(model, grid[..., 8:], positions[8:], valid[..., 8:], [Prefix(first, "all")])
            head: Any = model.get_output_embeddings()
            apart = (head(hidden[0, 0, -1]).float() - expected).square().mean().sqrt() / expected.std()
            most = TOLERANCE if model.dtype == torch.float32 else ROUNDED
            why = "read in parts it answers otherwise than read at once" if apart > most else ""
    except (TypeError, ValueError, RuntimeError, AttributeError, IndexError) as error:
        why = f"it does not read through the library's attention interface: {str(error).splitlines()[0]}"
    finally:
        model.set_attn_implementation(usual)
    if window is not None and window < SHORTEST_WINDOW:
        why = f"it looks back {window} tokens at the most, and a prompt can be longer"
    if why:
        raise UserError(
            f"{name} cannot be read in bulk ({why}): take one whose layers all attend, as SmolLM2 or Qwen3, or ask "
            'it behind a server: language_model.answers = "server".'
        )
