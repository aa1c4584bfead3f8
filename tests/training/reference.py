"""Two training steps of a small model in PyTorch, which tests/training.rs repeats.

    python3.11 -m venv venv
    venv/bin/pip install torch==2.5.1 transformers==4.49.0 safetensors==0.8.0 "numpy<3"
    venv/bin/python tests/training/reference.py tests/fixtures/training

The networks are those of transformers (BLIP-2's vision encoder and Q-Former, Phi with
`qk_layernorm`), to which this file adds what training needs and they lack, from the published
descriptions: the three losses of BLIP-2's first stage with their masks (Li et al., 2023), the
RMS norm behind Phi's attention and its f16 rotary tables, the loss on the answer alone, LoRA
(Hu et al., 2021) and DoRA (Liu et al., 2024), both as the dense weight that they stand for.

Everything is computed in f64 from weights that f32 holds exactly, on a CPU; so what the other
side is off is its own rounding. The folder then holds

    weights.safetensors   all weights before the first step, by their names in a bundle
    cases.json            the sizes of the model, and for each case its batch, the settings of
                          the optimiser and, for each of two steps, losses and gradient norm
    CASE.safetensors      inputs under `input/`, then for every trained tensor the gradient of
                          the first step (not yet clipped) under `gradient/`, and the weight
                          after one and two steps under `step1/` and `step2/`
"""

import json
import math
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn
from torch.func import functional_call
from transformers import Blip2QFormerConfig, Blip2VisionConfig, PhiConfig, PhiForCausalLM
from transformers.models.blip_2.modeling_blip_2 import (
    Blip2Encoder,
    Blip2QFormerModel,
    Blip2VisionEmbeddings,
)

VISION = dict(width=24, depth=2, heads=3, mlp=40, patch=4, train_size=16, eps=1e-6)
QFORMER = dict(
    hidden=32, layers=3, heads=4, intermediate=40, queries=4, image_size=16, eps=1e-12,
    ln_vision_eps=1e-5,
)  # fmt: skip
RETRIEVAL = dict(qformer=QFORMER, vocabulary=60, positions=16, projection=16, max_text=12)
LANGUAGE = dict(
    projection_mid=40, vocabulary=60, hidden=32, layers=2, heads=2, intermediate=48, rotary=6,
    rope_theta=10000.0, max_positions=64, eps=1e-5, rms_eps=1e-6, lora_scale=None, lora_rank=None,
)  # fmt: skip
RANK, ALPHA = 4, 6.0
BATCH = 4
DEC, BOS, END = 59, 58, 57
SMOOTHING = 0.1

# Vectors do not decay, nor does what has one of these in its name.
UNDECAYED = ("bias", "ln", "bn")

# The epsilon is not the usual 1e-8: where a gradient is zero but for rounding, such as that of
# a key's bias, the usual one would turn the rounding into whole steps. The greatest norm is
# such that some steps are clipped and others are not.
OPTIMISER = dict(
    betas=[0.9, 0.99], eps=1e-4, weight_decay=0.05, max_norm=2.0, rates=[0.01, 0.004]
)


# Weights ----------------------------------------------------------------------------------


def shapes():
    """Every tensor: name, shape, mean and deviation."""
    out = {}

    def put(name, *shape, mean=0.0, sd=None):
        out[name] = (shape, mean, shape[-1] ** -0.5 if sd is None else sd)

    def linear(name, inputs, outputs):
        put(f"{name}.weight", outputs, inputs)
        put(f"{name}.bias", outputs, sd=0.1)

    def norm(name, width):
        put(f"{name}.weight", width, mean=1.0, sd=0.1)
        put(f"{name}.bias", width, sd=0.1)

    v, q, r, c = VISION, QFORMER, RETRIEVAL, LANGUAGE
    tokens = 1 + (v["train_size"] // v["patch"]) ** 2
    put("vit.cls_token", 1, 1, v["width"], sd=0.5)
    put("vit.pos_embed", 1, tokens, v["width"], sd=0.5)
    linear("vit.patch_embed.proj", 3 * v["patch"] ** 2, v["width"])
    for i in range(v["depth"]):
        at = f"vit.blocks.{i}"
        norm(f"{at}.norm1", v["width"])
        put(f"{at}.attn.q_bias", v["width"], sd=0.1)
        put(f"{at}.attn.v_bias", v["width"], sd=0.1)
        put(f"{at}.attn.qkv.weight", 3 * v["width"], v["width"])
        linear(f"{at}.attn.proj", v["width"], v["width"])
        norm(f"{at}.norm2", v["width"])
        linear(f"{at}.mlp.fc1", v["width"], v["mlp"])
        linear(f"{at}.mlp.fc2", v["mlp"], v["width"])

    at, hidden = "retrieval", q["hidden"]
    norm(f"{at}.ln_vision", v["width"])
    put(f"{at}.query_tokens", 1, q["queries"], hidden, sd=0.5)
    put(f"{at}.temp", 1, mean=0.07, sd=0.0)
    linear(f"{at}.vision_proj", hidden, r["projection"])
    linear(f"{at}.text_proj", hidden, r["projection"])
    linear(f"{at}.itm_head", hidden, 2)
    bert = f"{at}.Qformer.bert"
    norm(f"{bert}.embeddings.LayerNorm", hidden)
    put(f"{bert}.embeddings.word_embeddings.weight", r["vocabulary"], hidden, sd=0.5)
    put(f"{bert}.embeddings.position_embeddings.weight", r["positions"], hidden, sd=0.5)
    for i in range(q["layers"]):
        layer = f"{bert}.encoder.layer.{i}"
        for name, keys in [("attention", hidden), ("crossattention", v["width"])]:
            if name == "attention" or i % 2 == 0:
                linear(f"{layer}.{name}.self.query", hidden, hidden)
                linear(f"{layer}.{name}.self.key", keys, hidden)
                linear(f"{layer}.{name}.self.value", keys, hidden)
                linear(f"{layer}.{name}.output.dense", hidden, hidden)
                norm(f"{layer}.{name}.output.LayerNorm", hidden)
        for side in ["", "_query"]:
            linear(f"{layer}.intermediate{side}.dense", hidden, q["intermediate"])
            linear(f"{layer}.output{side}.dense", q["intermediate"], hidden)
            norm(f"{layer}.output{side}.LayerNorm", hidden)
    head = f"{at}.Qformer.cls.predictions"
    linear(f"{head}.transform.dense", hidden, hidden)
    norm(f"{head}.transform.LayerNorm", hidden)
    put(f"{head}.bias", r["vocabulary"], sd=0.1)

    at, hidden, dim = "language", c["hidden"], c["hidden"] // c["heads"]
    linear(f"{at}.llama_proj", QFORMER["hidden"], c["projection_mid"])
    linear(f"{at}.llama_proj2", c["projection_mid"], hidden)
    put(f"{at}.model.embed_tokens.weight", c["vocabulary"], hidden, sd=0.5)
    for i in range(c["layers"]):
        layer = f"{at}.model.layers.{i}"
        norm(f"{layer}.input_layernorm", hidden)
        norm(f"{layer}.self_attn.q_layernorm", dim)
        norm(f"{layer}.self_attn.k_layernorm", dim)
        put(f"{layer}.post_layernorm.weight", hidden, mean=1.0, sd=0.1)
        for name, outputs in [("query_key_value", 3 * hidden), ("dense", hidden)]:
            name = f"{layer}.self_attn.{name}"
            linear(name, hidden, outputs)
            put(f"{name}.lora_A.weight", RANK, hidden)
            put(f"{name}.lora_B.weight", outputs, RANK)
        linear(f"{layer}.mlp.fc1", hidden, c["intermediate"])
        linear(f"{layer}.mlp.fc2", c["intermediate"], hidden)
    norm(f"{at}.model.final_layernorm", hidden)
    linear(f"{at}.lm_head", hidden, c["vocabulary"])
    return out


def draw():
    """The weights in f64, each of them exact in f32."""
    generator = torch.Generator().manual_seed(2026)
    weights = {}
    for name, (shape, mean, sd) in shapes().items():
        values = mean + sd * torch.randn(shape, generator=generator)
        weights[name] = values.float().double()
    # DoRA begins with the lengths of the rows; here they have already moved.
    for name in [name for name in weights if name.endswith("lora_A.weight")]:
        at = name.removesuffix(".lora_A.weight")
        length = merged(weights, at, "lora").norm(dim=1)
        moved = length * (1 + 0.1 * torch.randn(length.shape, generator=generator))
        weights[f"{at}.lora_magnitude_vector"] = moved.float().double()
    return weights


# Networks ---------------------------------------------------------------------------------


def at(weights, prefix):
    """The weights below a prefix, by the rest of their names."""
    return {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}


class Vision:
    """EVA ViT: transformers' without the norm behind it."""

    def __init__(self):
        v = VISION
        config = Blip2VisionConfig(
            hidden_size=v["width"], intermediate_size=v["mlp"], num_hidden_layers=v["depth"],
            num_attention_heads=v["heads"], image_size=v["train_size"], patch_size=v["patch"],
            layer_norm_eps=v["eps"], hidden_act="gelu", qkv_bias=True,
        )  # fmt: skip
        self.embeddings = Blip2VisionEmbeddings(config).double()
        self.encoder = Blip2Encoder(config).double()

    def __call__(self, weights, pixels):
        w = at(weights, "vit.")
        patch = w["patch_embed.proj.weight"]
        embeddings = {
            "class_embedding": w["cls_token"],
            "position_embedding": w["pos_embed"],
            "patch_embedding.weight": patch.reshape(-1, 3, VISION["patch"], VISION["patch"]),
            "patch_embedding.bias": w["patch_embed.proj.bias"],
        }
        layers = {}
        for i in range(VISION["depth"]):
            block, layer = at(w, f"blocks.{i}."), f"layers.{i}"
            q, v = block.pop("attn.q_bias"), block.pop("attn.v_bias")
            layers[f"{layer}.self_attn.qkv.bias"] = torch.cat([q, torch.zeros_like(q), v])
            for name, tensor in block.items():
                name = name.replace("attn.", "self_attn.").replace(".proj.", ".projection.")
                name = name.replace("norm1", "layer_norm1").replace("norm2", "layer_norm2")
                layers[f"{layer}.{name}"] = tensor
        xs = functional_call(self.embeddings, embeddings, (pixels,), strict=True)
        return functional_call(self.encoder, layers, (xs,), strict=True).last_hidden_state


class QFormer:
    """The retrieval Q-Former with the heads of BLIP-2's first stage."""

    def __init__(self):
        q = QFORMER
        config = Blip2QFormerConfig(
            hidden_size=q["hidden"], num_hidden_layers=q["layers"], num_attention_heads=q["heads"],
            intermediate_size=q["intermediate"], hidden_act="gelu", hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0, layer_norm_eps=q["eps"], cross_attention_frequency=2,
            encoder_hidden_size=VISION["width"], use_qformer_text_input=True,
        )  # fmt: skip
        self.bert = Blip2QFormerModel(config).double()

    def run(self, w, xs, queries, mask, encoded):
        names = {}
        for name, tensor in at(w, "Qformer.bert.").items():
            if name.startswith("embeddings.LayerNorm."):
                names[name.replace("embeddings.LayerNorm", "layernorm")] = tensor
            elif name.startswith("encoder."):
                names[name.replace(".self.", ".attention.")] = tensor
        arguments = dict(
            query_embeds=xs, query_length=queries, attention_mask=mask.double(),
            encoder_hidden_states=encoded,
        )  # fmt: skip
        return functional_call(self.bert, names, (), arguments, strict=True).last_hidden_state

    def embed(self, w, ids):
        table = at(w, "Qformer.bert.embeddings.")
        places = table["position_embeddings.weight"][: ids.shape[1]]
        return F.embedding(ids, table["word_embeddings.weight"]) + places

    def queries(self, w, n):
        return w["query_tokens"].expand(n, -1, -1)

    def image_features(self, w, encoded):
        xs = self.queries(w, len(encoded))
        xs = self.run(w, xs, xs.shape[1], torch.ones(xs.shape[:2]), encoded)
        return F.normalize(linear(w, "vision_proj", xs), dim=-1)

    def text_features(self, w, ids, real):
        xs = self.run(w, self.embed(w, ids), 0, real, None)
        return F.normalize(linear(w, "text_proj", xs[:, 0]), dim=-1)

    def match(self, w, encoded, ids, real):
        """Logits of pairs: queries and words see each other."""
        queries = self.queries(w, len(encoded))
        n = queries.shape[1]
        mask = torch.cat([torch.ones(queries.shape[:2]), real], 1)
        xs = torch.cat([queries, self.embed(w, ids)], 1)
        return linear(w, "itm_head", self.run(w, xs, n, mask, encoded)[:, :n]).mean(1)

    def generate(self, w, encoded, ids, real):
        """Logits of words: queries see queries, words see queries and earlier words."""
        queries = self.queries(w, len(encoded))
        n, length = queries.shape[1], ids.shape[1]
        mask = torch.zeros(n + length, n + length)
        mask[:, :n] = 1
        mask[n:, n:] = torch.ones(length, length).tril()
        mask = mask * torch.cat([torch.ones(queries.shape[:2]), real], 1)[:, None]
        xs = torch.cat([queries, self.embed(w, ids)], 1)
        xs = self.run(w, xs, n, mask, encoded)[:, n:]
        head = at(w, "Qformer.cls.predictions.")
        xs = F.gelu(linear(head, "transform.dense", xs))
        xs = layer_norm(head, "transform.LayerNorm", xs, QFORMER["eps"])
        return F.linear(xs, w["Qformer.bert.embeddings.word_embeddings.weight"], head["bias"])


class Rotary(nn.Module):
    """Rotary tables rounded to f16, as the published model holds them."""

    def __init__(self, exact):
        super().__init__()
        self.exact = [exact]  # in a list, so that its buffer is none of this module

    def forward(self, xs, positions):
        return [table.half().to(xs.dtype) for table in self.exact[0](xs.float(), positions)]


class Phi:
    """Phi with the three extra norms."""

    def __init__(self):
        c = LANGUAGE
        config = PhiConfig(
            vocab_size=c["vocabulary"], hidden_size=c["hidden"],
            intermediate_size=c["intermediate"], num_hidden_layers=c["layers"],
            num_attention_heads=c["heads"], hidden_act="gelu_new", layer_norm_eps=c["eps"],
            max_position_embeddings=c["max_positions"], rope_theta=c["rope_theta"],
            partial_rotary_factor=0.4, qk_layernorm=True, attn_implementation="sdpa",
        )  # fmt: skip
        self.model = PhiForCausalLM(config)
        self.model.model.rotary_emb = Rotary(self.model.model.rotary_emb)
        for layer in self.model.model.layers:
            assert layer.self_attn.rotary_ndims == c["rotary"]
            rms = nn.RMSNorm(c["hidden"], eps=c["rms_eps"])
            layer.self_attn.dense = nn.Sequential(layer.self_attn.dense, rms)
        self.model.double().eval()

    def __call__(self, weights, embeds, peft):
        w, names = at(weights, "language."), {}
        dim = LANGUAGE["hidden"] // LANGUAGE["heads"]
        for name, tensor in w.items():
            if name.startswith("llama_proj") or ".lora_" in name:
                continue
            name, kind = name.rsplit(".", 1)
            if peft and kind == "weight" and f"{name}.lora_A.weight" in w:
                tensor = merged(w, name, peft)
            if name.endswith("query_key_value"):
                # Each head's rows stand together: its query, its key, its value.
                parts = tensor.unflatten(0, (-1, 3, dim)).unbind(1)
                for part, rows in zip("qkv", parts):
                    part = name.replace("query_key_value", f"{part}_proj")
                    names[f"{part}.{kind}"] = rows.flatten(0, 1)
            else:
                name = name.replace("self_attn.dense", "self_attn.dense.0")
                name = name.replace("post_layernorm", "self_attn.dense.1")
                names[f"{name}.{kind}"] = tensor
        arguments = dict(inputs_embeds=embeds, use_cache=False)
        return functional_call(self.model, names, (), arguments, strict=True).logits


def linear(w, name, xs):
    return F.linear(xs, w[f"{name}.weight"], w[f"{name}.bias"])


def layer_norm(w, name, xs, eps):
    return F.layer_norm(xs, xs.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"], eps)


def merged(w, name, peft):
    """The dense weight that a LoRA or DoRA stands for."""
    added = w[f"{name}.lora_B.weight"] @ w[f"{name}.lora_A.weight"]
    weight = w[f"{name}.weight"] + ALPHA / RANK * added
    if peft == "dora":
        # The article's section 4.3: the length of a row counts as a constant.
        length = weight.norm(dim=1, keepdim=True).detach()
        weight = w[f"{name}.lora_magnitude_vector"][:, None] * weight / length
    return weight


# Losses -----------------------------------------------------------------------------------


def padded(texts):
    """Ids and which of them are real, both `(texts, longest)`."""
    longest = max(map(len, texts))
    ids = torch.tensor([text + [0] * (longest - len(text)) for text in texts])
    real = torch.tensor([[1.0] * len(text) + [0.0] * (longest - len(text)) for text in texts])
    return ids, real


def retrieval_losses(networks, weights, batch, inputs):
    """ITC, ITM on given negatives, ITG; also the weights by which negatives would be drawn."""
    qformer, w = networks["qformer"], at(weights, "retrieval.")
    vit = inputs.get("vit")
    if vit is None:
        vit = networks["vision"](weights, inputs["pixels"])
    encoded = layer_norm(w, "ln_vision", vit, QFORMER["ln_vision_eps"])
    ids, real = padded(batch["texts"])

    images, texts = qformer.image_features(w, encoded), qformer.text_features(w, ids, real)
    similarity = torch.einsum("iqd,td->iqt", images, texts).amax(1) / w["temp"]
    own = torch.arange(len(ids))
    itc = [F.cross_entropy(s, own, label_smoothing=SMOOTHING) for s in (similarity, similarity.T)]
    others = similarity.detach().masked_fill(torch.eye(len(ids)).bool(), -math.inf)
    tables = {
        "text_weights": others.softmax(1),  # (images, texts)
        "image_weights": others.T.softmax(1),  # (texts, images)
    }

    no_image, no_text = batch["negative_images"], batch["negative_texts"]
    pictures = torch.cat([encoded, encoded[no_image], encoded])
    words, present = torch.cat([ids, ids, ids[no_text]]), torch.cat([real, real, real[no_text]])
    matches = torch.tensor([1] * len(ids) + [0] * 2 * len(ids))
    itm = F.cross_entropy(qformer.match(w, pictures, words, present), matches)

    begun = ids.clone()
    begun[:, 0] = DEC
    targets = begun.masked_fill(real == 0, -100)[:, 1:]
    logits = qformer.generate(w, encoded, begun, real)[:, :-1]
    itg = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), label_smoothing=SMOOTHING)
    return {"itc": sum(itc) / 2, "itm": itm, "itg": itg}, tables


def language_losses(networks, weights, batch, inputs, peft):
    """Mean cross-entropy of the answers' tokens behind their prompts."""
    w = at(weights, "language.")
    table = w["model.embed_tokens.weight"]
    tokens = linear(w, "llama_proj2", linear(w, "llama_proj", inputs["tokens"]))
    rows, targets = [], []
    for row in batch["rows"]:
        image = tokens[row["picture"]]
        left, right, answer = (torch.tensor(row[k]).long() for k in ("left", "right", "answer"))
        left = torch.cat([torch.tensor([BOS]), left])
        left, right, said = (F.embedding(ids, table) for ids in (left, right, answer))
        rows.append(torch.cat([left, image, right, said]))
        silent = len(left) + len(image) + len(right)
        targets.append(torch.cat([torch.full((silent,), -100), answer]))
    embeds = nn.utils.rnn.pad_sequence(rows, batch_first=True)
    targets = nn.utils.rnn.pad_sequence(targets, batch_first=True, padding_value=-100)
    logits = networks["phi"](weights, embeds, peft)[:, :-1]
    loss = F.cross_entropy(logits.flatten(0, 1), targets[:, 1:].flatten())
    return {"answer": loss}, {}


# Cases ------------------------------------------------------------------------------------


def retrieval_batch():
    """Texts as `[CLS] words [SEP]` of different lengths, and a wrong partner for each."""
    return {
        "texts": [
            [1, 14, 33, 7, 2],
            [1, 40, 8, 21, 55, 13, 9, 30, 2],
            [1, 25, 2],
            [1, 8, 33, 33, 46, 17, 2],
        ],
        "negative_images": [2, 0, 3, 0],
        "negative_texts": [1, 3, 0, 2],
    }


def language_batch(prompts, pictures):
    """Answers with their end about pictures, with or without a prompt around the picture."""
    answers = [[12, 44, 9, 31, END], [5, END], [27, 27, 18, END], [8, 50, END]]
    asked = [[20, 6, 41], [52, 11], [33, 4, 36, 15, 22], [11]]
    rows = []
    for picture, question, answer in zip(pictures, asked, answers):
        left, right = ([3, 47, 10], question) if prompts else ([], [])
        rows.append({"picture": picture, "left": left, "right": right, "answer": answer})
    return {"rows": rows}


def trained(stage, names):
    """Names of what a stage trains."""
    norms = ("q_layernorm", "k_layernorm", "input_layernorm", "post_layernorm", "final_layernorm")

    def projection_or_norm(name):
        return ".llama_proj" in name or name.endswith(tuple(f"{norm}.weight" for norm in norms))

    keep = {
        "retrieval": lambda n: n.startswith("retrieval."),
        "vision": lambda n: n.startswith(("retrieval.", "vit.")),
        "language": lambda n: n.startswith("language.") and ".lora_" not in n,
        "warm_up": projection_or_norm,
        "lora": lambda n: projection_or_norm(n) or ".lora_A" in n or ".lora_B" in n,
        "dora": lambda n: projection_or_norm(n) or ".lora_" in n,
    }[stage]
    return [name for name in names if keep(name)]


def train(name, networks, start, batch, inputs):
    """Two steps; returns what the case holds and the tensors of its file."""
    weights = {k: v.clone() for k, v in start.items()}
    parameters = {k: weights[k].requires_grad_() for k in trained(name, start)}
    decays = {
        k: p.ndim >= 2 and not any(word in k for word in UNDECAYED) for k, p in parameters.items()
    }
    o = OPTIMISER
    optimiser = torch.optim.AdamW(
        [
            {"params": [p for k, p in parameters.items() if decays[k]]},
            {"params": [p for k, p in parameters.items() if not decays[k]], "weight_decay": 0.0},
        ],
        betas=o["betas"],
        eps=o["eps"],
        weight_decay=o["weight_decay"],
    )
    out = {f"input/{k}": v for k, v in inputs.items()}
    steps = []
    for step, rate in enumerate(o["rates"], 1):
        if name in ("retrieval", "vision"):
            losses, tables = retrieval_losses(networks, weights, batch, inputs)
        else:
            peft = name if name in ("lora", "dora") else None
            losses, tables = language_losses(networks, weights, batch, inputs, peft)
        optimiser.zero_grad()
        sum(losses.values()).backward()
        if step == 1:
            out |= tables
            for k, p in parameters.items():
                assert p.grad is not None, f"{k} has no gradient"
                out[f"gradient/{k}"] = p.grad.clone()
        norm = nn.utils.clip_grad_norm_(parameters.values(), o["max_norm"]).item()
        for group in optimiser.param_groups:
            group["lr"] = rate
        optimiser.step()
        out |= {f"step{step}/{k}": p.detach().clone() for k, p in parameters.items()}
        steps.append({"losses": {k: v.item() for k, v in losses.items()}, "norm": norm})
    return {"batch": batch, "steps": steps}, out


def write(path, tensors):
    save_file({k: v.detach().float().contiguous() for k, v in tensors.items()}, path)


def main():
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_default_dtype(torch.float32)
    networks = {"vision": Vision(), "qformer": QFormer(), "phi": Phi()}
    start = draw()
    generator = torch.Generator().manual_seed(4)

    def given(*shape):
        return torch.randn(shape, generator=generator).double()

    side, tokens = VISION["train_size"], shapes()["vit.pos_embed"][0][1]
    visual = {"tokens": given(3, QFORMER["queries"], QFORMER["hidden"])}
    runs = {
        "retrieval": (retrieval_batch(), {"vit": given(BATCH, tokens, VISION["width"])}),
        "vision": (retrieval_batch(), {"pixels": given(BATCH, 3, side, side)}),
        "language": (language_batch(True, [2, 0, 1]), visual),
        "warm_up": (language_batch(False, [0, 1, 2]), visual),
        "lora": (language_batch(True, [1, 0, 2, 0]), visual),
        "dora": (language_batch(True, [1, 0, 2, 0]), visual),
    }
    cases = {}
    for name, (batch, inputs) in runs.items():
        cases[name], tensors = train(name, networks, start, batch, inputs)
        write(folder / f"{name}.safetensors", tensors)
        print(name, cases[name]["steps"], len(tensors))
    write(folder / "weights.safetensors", start)
    # The captioner is there because a language part needs one; nothing goes through it.
    config = {
        "vision": VISION, "captioner": QFORMER | {"layers": 0}, "retrieval": RETRIEVAL,
        "language": LANGUAGE, "stage": 3,
    }  # fmt: skip
    about = {
        "config": config, "optimiser": OPTIMISER, "smoothing": SMOOTHING,
        "lora": {"rank": RANK, "alpha": ALPHA}, "dec": DEC, "bos": BOS, "cases": cases,
    }  # fmt: skip
    (folder / "cases.json").write_text(json.dumps(about, indent=1) + "\n")


if __name__ == "__main__":
    main()
