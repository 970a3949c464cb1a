# syntax=docker/dockerfile:1

# The image holds the binary and what glibc needs, no shell and no package manager:
#
#     docker build -t keybearer .
#     docker run --name keybearer -p 8443:8443 -v keybearer:/var/lib/keybearer keybearer
#     docker cp keybearer:/var/lib/keybearer/data/tls/ca.pem .        # then: curl --cacert ca.pem https://localhost:8443/…
#     docker exec keybearer keybearer accounts create alice           # manage it while it runs
#
# A configuration of your own: mount it at /var/lib/keybearer/config/gateway.toml, or set KEYBEARER__… variables.

FROM rust:1.95-slim-bookworm AS build
WORKDIR /src
COPY . .
# The caches keep crates and finished dependencies from one build to the next; the binary must leave them within the same step.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked \
    && install -D target/release/keybearer /out/keybearer \
    && install -d -m 0700 /out/home

# Debian 12 as well, so that glibc is the one it was built with.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /out/keybearer /usr/local/bin/keybearer
# 65532 is distroless' nonroot. The data folder is made inside this one by keybearer itself, with mode 0700, whoever owns the
# volume's root.
COPY --from=build --chown=65532:65532 /out/home /var/lib/keybearer
WORKDIR /var/lib/keybearer
VOLUME /var/lib/keybearer
USER 65532:65532

# 8443: the gateway. 8444: metrics and administration, on loopback inside the container unless you say
# `--admin-listen 0.0.0.0:8444`; publish that port only towards a network you trust.
EXPOSE 8443 8444
# Drains on SIGTERM: no new connections, those in flight finish.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s --retries=3 CMD ["keybearer", "health"]

ENTRYPOINT ["keybearer"]
CMD ["serve", "--listen", "0.0.0.0:8443"]
