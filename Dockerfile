# One image for every role: openbat gateway, openbat worker conversations|clickhouse|analysis.
FROM python:3.12-slim AS build
RUN pip install --no-cache-dir uv
WORKDIR /app
ENV UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never
COPY . .
RUN uv sync --locked --no-dev --no-editable --extra redis --extra llm --extra tracing

FROM python:3.12-slim
RUN useradd --system --create-home --uid 10001 openbat && mkdir /data && chown openbat /data
COPY --from=build /app/.venv /app/.venv
ENV PATH=/app/.venv/bin:$PATH OPENBAT_DATA_DIR=/data OPENBAT_HOST=0.0.0.0
USER openbat
VOLUME /data
EXPOSE 8080
ENTRYPOINT ["openbat"]
CMD ["gateway"]
