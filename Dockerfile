# The image that launch/kubernetes.yaml runs; any other container engine takes it too.
#   docker build -t imas_jax:0.1.0 .                                       # CPU
#   docker build -t imas_jax:0.1.0 --build-arg EXTRAS=cuda,tfrecord .      # NVIDIA GPUs
#   docker run --gpus=all --shm-size=8g -v /data:/data imas_jax:0.1.0 \
#     configs/davis.py --config.data.root=/data/DAVIS --config.workdir=/data/runs/davis
# Arguments are those of launch/local.sh, and SIGTERM (docker stop --time=120) stops
# training at a checkpoint. CUDA comes with the wheels: of the host only the driver and
# its container toolkit are wanted.
FROM debian:bookworm-slim
# Extras of pyproject.toml: tfrecord; cuda,tfrecord.
ARG EXTRAS=tfrecord
WORKDIR /imas_jax
# Python 3.11, the one with the reference CRF (pydensecrf2), which g++ compiles.
# hadolint ignore=DL3008
RUN apt-get update \
  && apt-get install --yes --no-install-recommends \
    ca-certificates g++ python3-dev python3-venv \
  && rm -rf /var/lib/apt/lists/*
# What is installed changes seldom: below it, the sources alone make a new layer.
COPY LICENSE README.md constraints.txt pyproject.toml ./
RUN mkdir configs imas_jax \
  && touch configs/__init__.py imas_jax/__init__.py \
  && python3 -m venv .venv \
  && .venv/bin/pip install --no-cache-dir --constraint constraints.txt \
    --editable ".[${EXTRAS}]"
COPY configs configs
COPY imas_jax imas_jax
COPY launch launch
ENTRYPOINT ["launch/local.sh"]
