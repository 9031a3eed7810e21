# The container that the pipelines build in. Made by scripts/build-builder.sh; what is pinned where: docs/pipelines.md.
#
# Debian 12 by its digest. There is no default: a digest that nobody looked up today pins what has known holes.
ARG BASE
FROM ${BASE}

LABEL org.opencontainers.image.title="kubesolo-update builder"

# The Makefile takes zig from there.
ENV BUILDER_TOOLS=/opt/builder/.tools
# oras is there, which Debian 12 lacks.
ENV PATH=/opt/builder/.tools/bin:$PATH

COPY Cargo.toml /opt/builder/
COPY scripts/build.sh scripts/install-deps.sh scripts/deps.tsv scripts/builder-packages.sh scripts/builder-packages.lock \
     scripts/builder-pip.lock /opt/builder/scripts/
COPY scripts/lib/cli.sh scripts/lib/deps-apt.sh scripts/lib/deps-ways.sh /opt/builder/scripts/lib/
RUN ["/opt/builder/scripts/builder-packages.sh", "install"]

WORKDIR /work
CMD ["/bin/bash"]
