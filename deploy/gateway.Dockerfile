# The gateway alone: no model, no GPU, no Triton. Build from the repository's root:
# docker build -f deploy/gateway.Dockerfile -t faceclip-gateway .
ARG PYTHON_TAG=3.12-slim
FROM python:${PYTHON_TAG}

ENV PIP_NO_CACHE_DIR=1 PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1

WORKDIR /opt/gateway
COPY gateway/requirements.txt gateway/
RUN python3 -m pip install -r gateway/requirements.txt
COPY client/faceclip client/faceclip
COPY gateway gateway
# `data` is what outlives a container: keys, jobs and results.
RUN mkdir data && chown 1000:1000 data

USER 1000:1000
ENV HOME=/tmp PYTHONPATH=/opt/gateway/client
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 CMD ["python3", "-m", "gateway", "health"]
ENTRYPOINT ["python3", "-m", "gateway"]
CMD ["run", "--host=0.0.0.0", "--data=data"]
