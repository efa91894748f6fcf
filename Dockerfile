# syntax=docker/dockerfile:1
# Two variants; both hold the models, so that they work without a network:
#   docker build --target cpu  -t vidanon:0.1.0-cpu .
#   docker build --target cuda -t vidanon:0.1.0-cuda .
#   docker run --rm --network none --user "$(id -u):$(id -g)" -v "$PWD:/data" vidanon:0.1.0-cpu anonymize /data/interview.mp4
ARG PYTHON_IMAGE=python:3.11.13-slim-bookworm
ARG CUDA_IMAGE=nvidia/cuda:12.6.3-runtime-ubuntu22.04

FROM ${PYTHON_IMAGE} AS cpu-base
# OpenCV and MediaPipe load the libraries, KubeRay's probes call wget, and Ray uses login shells, which look
# in /usr/local/bin only; versions follow the pinned release of the base image.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libegl1 libgl1 libgles2 libglib2.0-0 wget \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --create-home vidanon \
    && ln -s /opt/vidanon/bin/vidanon /opt/vidanon/bin/ray /usr/local/bin/
ENV PATH=/opt/vidanon/bin:$PATH \
    VIDANON_MODELS=/opt/models \
    RAY_USAGE_STATS_ENABLED=0

FROM cpu-base AS cpu-build
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY vidanon ./vidanon
COPY pipelines ./pipelines
# The wheels of torch for the CPU are a tenth of the size; give another index where you mirror them.
ARG TORCH_INDEX=""
# What has no version is this project.
# hadolint ignore=DL3013
RUN python -m venv /opt/vidanon \
    && if [ -n "${TORCH_INDEX}" ]; then pip install --no-cache-dir --index-url "${TORCH_INDEX}" "torch==2.13.0"; fi \
    && pip install --no-cache-dir ".[ray]" "dlib-bin==20.0.1.post1"
# Converted networks are kept beside the models; a container could not write them there.
RUN vidanon models fetch && vidanon models convert

FROM cpu-base AS cpu
COPY --from=cpu-build /opt/vidanon /opt/vidanon
COPY --from=cpu-build /opt/models /opt/models
USER 10001
WORKDIR /data
ENTRYPOINT ["vidanon"]
CMD ["--help"]

FROM ${CUDA_IMAGE} AS cuda
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends \
        libegl1 libgl1 libgles2 libglib2.0-0 python3.11 python3.11-venv wget \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --create-home vidanon \
    && ln -s /opt/vidanon/bin/vidanon /opt/vidanon/bin/ray /usr/local/bin/
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY vidanon ./vidanon
COPY pipelines ./pipelines
ENV PATH=/opt/vidanon/bin:$PATH \
    VIDANON_MODELS=/opt/models \
    RAY_USAGE_STATS_ENABLED=0
# hadolint ignore=DL3013
RUN python3.11 -m venv /opt/vidanon \
    && pip install --no-cache-dir ".[ray]" "dlib-bin==20.0.1.post1"
RUN vidanon models fetch && vidanon models convert
USER 10001
WORKDIR /data
ENTRYPOINT ["vidanon"]
CMD ["--help"]
