# The program in a container, without a GPU or with:
#
#   docker build --target cpu  -t deeplab-zoo:cpu  --build-arg TORCH_INDEX=<index of CPU wheels> .
#   docker build --target cuda -t deeplab-zoo:cuda .
#   docker run --rm -it --gpus all --ipc host -u "$(id -u):$(id -g)" -v "$PWD:/data" \
#     deeplab-zoo:cuda finetune x.safetensors VOC2012 --resume auto -o run
#
# --ipc host gives the decoding processes the shared memory that they hand batches over in.
# Without TORCH_INDEX the cpu stage gets torch's usual build, which also runs without a GPU and
# is some gigabytes larger.

FROM python:3.12-slim AS base
# torch.compile needs a compiler when it runs.
RUN apt-get update && apt-get install -y --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
ENV PIP_NO_CACHE_DIR=1 PYTHONUNBUFFERED=1 HOME=/tmp NUMBA_CACHE_DIR=/tmp/numba
WORKDIR /src
COPY constraints.txt .

FROM base AS wheel
RUN pip install -c constraints.txt build
COPY . .
RUN python -m build --wheel --outdir /dist

FROM base AS cpu
ARG TORCH_INDEX=""
RUN pip install -c constraints.txt ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch
RUN --mount=type=bind,from=wheel,source=/dist,target=/dist \
    pip install -c constraints.txt "$(ls /dist/*.whl)[coco,parity,sbd,train]"
WORKDIR /data
ENTRYPOINT ["deeplab-zoo"]
CMD ["--help"]

# torch's usual build for Linux brings CUDA's libraries; the driver comes from the host.
FROM base AS cuda
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
RUN pip install -c constraints.txt torch
RUN --mount=type=bind,from=wheel,source=/dist,target=/dist \
    pip install -c constraints.txt "$(ls /dist/*.whl)[coco,parity,sbd,train]"
WORKDIR /data
ENTRYPOINT ["deeplab-zoo"]
CMD ["--help"]
