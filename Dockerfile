# One image for both commands: `raftkv` (the node and its tools) and `raftkv-operator`.
FROM python:3.13-slim AS build

ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python -m venv /opt/raftkv
COPY requirements/runtime.lock /src/requirements/
RUN /opt/raftkv/bin/python -m pip install --require-hashes -r /src/requirements/runtime.lock

# The project itself needs setuptools to build, which must not stay in the image.
COPY requirements/dev.lock requirements/runtime.in /src/requirements/
COPY pyproject.toml README.md LICENSE /src/
COPY node /src/node
COPY operator /src/operator
RUN python -m venv /opt/build \
    && grep -A 3 '^setuptools==' /src/requirements/dev.lock | sed '/^ *#/,$d' > /src/build.lock \
    && /opt/build/bin/python -m pip install --require-hashes -r /src/build.lock \
    && /opt/build/bin/python -m pip wheel --no-deps --no-build-isolation -w /wheels /src \
    && /opt/raftkv/bin/python -m pip install --no-deps --no-index /wheels/*.whl \
    && /opt/raftkv/bin/python -m pip uninstall -y pip \
    && /opt/raftkv/bin/python -m compileall -q -j 0 /opt/raftkv/lib


FROM python:3.13-slim

# The root filesystem is read-only in Kubernetes; the bytecode was compiled above.
ENV PATH=/opt/raftkv/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
COPY --from=build /opt/raftkv /opt/raftkv
# fsGroup and runAsUser of the pods name the same number.
USER 65532:65532
EXPOSE 7400 7401 7402 7403
CMD ["raftkv", "node"]
