"""Pull a model from the Hub and let it write, with torch, safetensors and huggingface_hub alone.

python examples/plain_torch.py ada/my-text "Once upon a time"
"""

import json
import sys

import torch
from huggingface_hub import hf_hub_download, model_info
from safetensors.torch import load_file

repo, prompt = sys.argv[1:]
commit = model_info(repo).sha  # both files of one commit, whatever is pushed meanwhile
with open(hf_hub_download(repo, "config.json", revision=commit), encoding="utf-8") as file:
    config = json.load(file)
vocab, cell = config["vocab"], getattr(torch.nn, config["cell"].upper())
model = torch.nn.ModuleDict(
    {
        "embedding": torch.nn.Embedding(len(vocab), config["embedding_size"]),
        "recurrent": cell(config["embedding_size"], config["hidden_size"], config["num_layers"]),
        "head": torch.nn.Linear(config["hidden_size"], len(vocab)),
    }
)
model.load_state_dict(load_file(hf_hub_download(repo, "model.safetensors", revision=commit)))

print(prompt, end="")
ids, state = torch.tensor([[vocab.index(symbol)] for symbol in prompt]), None  # (T, 1)
with torch.inference_mode():
    for _ in range(300):
        hidden, state = model["recurrent"](model["embedding"](ids), state)
        probabilities = (model["head"](hidden[-1]) / 0.8).softmax(-1)  # (1, V)
        ids = torch.multinomial(probabilities, 1)
        print(vocab[ids.item()], end="", flush=True)
print()
