FROM python:3.11-slim AS build
WORKDIR /src
RUN python -m venv /opt/roompulse
# Dependencies first: they change more rarely than the code, and stay in the cache.
COPY requirements.lock ./
RUN /opt/roompulse/bin/pip install --no-cache-dir --require-hashes -r requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY schemas ./schemas
COPY pipeline ./pipeline
COPY agents ./agents
COPY dashboards ./dashboards
RUN /opt/roompulse/bin/pip install --no-cache-dir --no-deps --no-build-isolation .

FROM python:3.11-slim
RUN useradd --system --uid 10001 --home-dir /var/lib/roompulse --create-home roompulse
COPY --from=build /opt/roompulse /opt/roompulse
ENV PATH=/opt/roompulse/bin:$PATH PYTHONUNBUFFERED=1
USER roompulse
# The worker's local tables are written here; they are a cache and can be lost with the container.
WORKDIR /var/lib/roompulse
ENTRYPOINT ["roompulse"]
CMD ["--help"]
