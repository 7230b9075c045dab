#!/usr/bin/env bash
# Opacus trains the padding vector of an Embedding, which torch promises to leave alone.
#
# torch: "the entries at `padding_idx` do not contribute to the gradient; therefore, the embedding vector at
# `padding_idx` is not updated during training". Opacus's per-sample gradients (grad_sample_mode "hooks", the default)
# count those positions like all others. The zero vector becomes non-zero with the first step (noise apart: it is off
# here), and a sample with much padding has a norm that is mostly padding, so that its real gradient is clipped away.
# "functorch" is right.
#
# No misuse: a valid layer, accepted by ModuleValidator, noise 0 and clipping out of reach. No thread was found.
# For a federation over reports or codes of unlike length: the length of the padding, a property of the batch, enters
# every patient's update.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3.11 -m venv "$work/venv"
"$work/venv/bin/pip" install -q torch==2.13.0
"$work/venv/bin/pip" install -q opacus==1.6.0 numpy==2.4.6
"$work/venv/bin/python" - <<'PY'
import warnings, opacus, torch
warnings.filterwarnings("ignore")

def padding_after_one_step(private, mode="hooks"):
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Embedding(9, 4, padding_idx=0), torch.nn.Flatten(), torch.nn.Linear(12, 1))
    embedding = network[0]
    words = torch.tensor([[1, 2, 0], [3, 0, 0], [4, 5, 6], [7, 0, 0]])
    optimizer = torch.optim.SGD(network.parameters(), lr=1.0)
    if private:
        loader = torch.utils.data.DataLoader(words, batch_size=4)
        network, optimizer, _ = opacus.PrivacyEngine().make_private(
            module=network, optimizer=optimizer, data_loader=loader, noise_multiplier=0.0, max_grad_norm=1e6,
            poisson_sampling=False, grad_sample_mode=mode)
    network(words).mean().backward()
    optimizer.step()
    return embedding.weight[0].detach().norm().item()

print("opacus", opacus.__version__, "torch", torch.__version__, "- length of the padding vector after one step, no noise")
plain, hooks = padding_after_one_step(False), padding_after_one_step(True)
functorch = padding_after_one_step(True, "functorch")
print(f"torch alone {plain:.4f}, opacus 'hooks' {hooks:.4f}, opacus 'functorch' {functorch:.4f}")
assert plain == 0.0 and functorch == 0.0
assert hooks > 0.01, "the padding vector now stays zero"
PY
