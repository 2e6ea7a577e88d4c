# An image with the program and all that it needs. From the root of a checkout:
#
#   docker build --tag imagenet_synth:cuda --build-arg TARGET=cuda \
#     --build-arg REVISION="$(git describe --always --dirty --abbrev=12 --exclude='*')" .
#   docker run --gpus all --shm-size 16g --volume "$PWD:/work" imagenet_synth:cuda --config quickstart
#
# TARGET is cpu, cuda or tpu. REVISION is what job.json calls the code, as there is no git inside. The program
# runs in /work: data/, weights/ and runs/ of configs are below it.
FROM python:3.11-slim

ARG TARGET=cpu
COPY requirements/${TARGET}.lock /tmp/
RUN pip install --no-cache-dir --requirement /tmp/${TARGET}.lock

WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY configs configs
COPY imagenet_synth imagenet_synth
RUN pip install --no-cache-dir --no-deps .

ARG REVISION
RUN test -n "${REVISION}" || { echo 'give REVISION as the head of the Dockerfile does' >&2; exit 2; }
ENV IMAGENET_SYNTH_REVISION=${REVISION}
# the driver is the host's: for NVIDIA's container toolkit, and the place where Google's clusters have it
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
ENV LD_LIBRARY_PATH=/usr/local/nvidia/lib64
WORKDIR /work
ENTRYPOINT ["imagenet_synth"]
