# API, worker and migrations from one image; compose.yaml says which.
FROM python:3.11-slim AS build
WORKDIR /app
COPY bootstrap.py requirements.lock ./
RUN python bootstrap.py

FROM python:3.11-slim
# The widget, PDFs and models need no system packages; git, compilers and tests stay out.
RUN useradd --uid 10001 --create-home secretary && mkdir /data && chown secretary /data
WORKDIR /app
COPY --from=build /app/.venv /app/.venv
COPY agents agents
COPY graphs graphs
COPY ingest ingest
COPY prompts prompts
COPY server server
COPY storage storage
COPY tools tools
ENV PATH=/app/.venv/bin:$PATH PYTHONUNBUFFERED=1 SECRETARY_DATA=/data MODEL_CACHE_DIR=/data/models
USER secretary
VOLUME /data
ENTRYPOINT ["python", "-m", "server"]
CMD ["--help"]
