# The command line in a container: docker run -v "$PWD:/work" IMAGE optimize … (CPU build of torch).
FROM python:3.11-slim
WORKDIR /opt/ckptmerge
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY ckptmerge ckptmerge
COPY service service
RUN pip install --no-cache-dir "$(grep '^torch==' constraints.txt)" \
 && pip install --no-cache-dir . --constraint constraints.txt \
 && useradd --create-home ckptmerge
USER ckptmerge
WORKDIR /work
ENTRYPOINT ["ckptmerge"]
